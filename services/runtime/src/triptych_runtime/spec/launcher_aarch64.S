// The program of launcher.py for aarch64: adds environment entries, then becomes the real command.
// Position independent; the table that launcher.py appends starts at the first byte after the code.
// Build:  aarch64-linux-gnu-as launcher_aarch64.S -o o && aarch64-linux-gnu-objcopy -O binary -j .text o code
    .text
    .globl _start
_start:
    ldr     x19, [sp]                   // argc
    add     x20, sp, #16                // &argv[1]: what to run
    add     x21, x20, x19, lsl #3       // envp
    mov     x1, #0
count:
    ldr     x2, [x21, x1, lsl #3]
    cbz     x2, counted
    add     x1, x1, #1
    b       count
counted:
    adr     x3, table
    ldr     x4, [x3], #8                // entries to add
    add     x5, x4, x1
    add     x5, x5, #3
    and     x5, x5, #-2
    sub     x6, sp, x5, lsl #3
    mov     sp, x6
    mov     x22, x6                     // the new envp: added entries first, so that they win
added:
    cbz     x4, inherited
    ldr     x2, [x3], #8
    str     x2, [x6], #8
    sub     x4, x4, #1
    b       added
inherited:
    mov     x3, x21
inherit:
    ldr     x2, [x3], #8
    str     x2, [x6], #8
    cbnz    x2, inherit
    mov     w25, #2                     // ENOENT
    ldr     x23, [x20]
    cbz     x23, failed
    mov     x3, x23
slash:
    ldrb    w2, [x3], #1
    cmp     w2, #'/'
    b.eq    direct
    cbnz    w2, slash
    sub     sp, sp, #8192               // room for a candidate
    ldr     w9, path
find_path:
    ldr     x24, [x21], #8
    cbz     x24, failed
    ldr     w2, [x24]
    cmp     w2, w9
    b.ne    find_path
    ldrb    w2, [x24, #4]
    cmp     w2, #'='
    b.ne    find_path
    add     x24, x24, #5
piece:
    mov     x3, sp
    add     x4, x3, #4094               // end of room for a directory
copy_directory:
    ldrb    w2, [x24]
    cbz     w2, directory_done
    cmp     w2, #':'
    b.eq    directory_done
    cmp     x3, x4
    b.hs    skip_long
    strb    w2, [x3], #1
    add     x24, x24, #1
    b       copy_directory
skip_long:
    ldrb    w2, [x24, #1]!
    cbz     w2, failed
    cmp     w2, #':'
    b.ne    skip_long
    add     x24, x24, #1
    b       piece
directory_done:
    mov     x5, sp
    add     x4, x5, #4095
    add     x4, x4, #4095
    cmp     x3, x5
    b.eq    copy_name                   // an empty piece is the working directory
    mov     w2, #'/'
    strb    w2, [x3], #1
copy_name:
    mov     x6, x23
copy_byte:
    ldrb    w2, [x6], #1
    strb    w2, [x3], #1
    cmp     x3, x4
    b.hs    failed
    cbnz    w2, copy_byte
    mov     x0, sp
    mov     x1, x20
    mov     x2, x22
    mov     x8, #221                    // execve
    svc     #0
    cmn     w0, #2                      // the last error that is not "no such file" is the telling one
    b.eq    next_piece
    neg     w25, w0
next_piece:
    ldrb    w2, [x24], #1
    cbz     w2, failed
    b       piece
direct:
    mov     x0, x23
    mov     x1, x20
    mov     x2, x22
    mov     x8, #221
    svc     #0
    neg     w25, w0
failed:
    mov     x0, #2
    adr     x1, message
    mov     x2, #(message_end - message)
    mov     x8, #64                     // write
    svc     #0
    mov     x0, #127                    // as a shell: 127 not found, 126 not executable
    cmp     w25, #2
    b.eq    exit
    mov     x0, #126
exit:
    mov     x8, #93                     // exit
    svc     #0
path:
    .ascii  "PATH"
message:
    .ascii  "triptych: the command cannot be executed\n"
message_end:
    .balign 8
table:
