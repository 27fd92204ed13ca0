"""What runs inside the unpack worker's processes.

Started as `python -I -S`, so that nothing but the standard library and the decompressors are imported and
start-up stays at some 20 ms; hence no dataclasses, typing, asyncio or logging here. `main` is the process
that stays (one for the daemon, while there is work), which forks a confined child for each layer.
"""
