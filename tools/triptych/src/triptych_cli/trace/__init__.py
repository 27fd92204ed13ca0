"""`triptych trace`: one request, and where its time went.

`Collector` receives spans over OTLP in this process; `tree.render` draws them. Both serve
`./dev demo --trace` and the tests too.
"""
