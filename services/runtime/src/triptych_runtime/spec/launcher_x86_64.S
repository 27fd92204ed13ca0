# The program of launcher.py for x86_64: adds environment entries, then becomes the real command.
# Position independent; the table that launcher.py appends starts at the first byte after the code.
# Build:  as launcher_x86_64.S -o o && objcopy -O binary -j .text o code
    .text
    .globl _start
_start:
    mov     (%rsp), %rbx                # argc
    lea     16(%rsp), %r12              # &argv[1]: what to run
    lea     16(%rsp,%rbx,8), %r13       # envp
    xor     %edx, %edx
count:
    cmpq    $0, (%r13,%rdx,8)
    je      counted
    inc     %rdx
    jmp     count
counted:
    lea     table(%rip), %rsi
    mov     (%rsi), %rcx                # entries to add
    lea     2(%rcx,%rdx), %rax
    shl     $3, %rax
    sub     %rax, %rsp
    and     $-16, %rsp
    mov     %rsp, %r14                  # the new envp: added entries first, so that they win
    mov     %rsp, %rdi
    add     $8, %rsi
    rep movsq
    mov     %r13, %rsi
    lea     1(%rdx), %rcx
    rep movsq
    mov     $2, %r15d                   # ENOENT
    mov     (%r12), %rbp
    test    %rbp, %rbp
    jz      failed
    mov     %rbp, %rdi
slash:
    mov     (%rdi), %al
    inc     %rdi
    cmp     $'/', %al
    je      direct
    test    %al, %al
    jnz     slash
    sub     $8192, %rsp                 # room for a candidate
find_path:
    mov     (%r13), %rbx
    test    %rbx, %rbx
    jz      failed
    add     $8, %r13
    cmpl    $0x48544150, (%rbx)         # "PATH"
    jne     find_path
    cmpb    $'=', 4(%rbx)
    jne     find_path
    add     $5, %rbx
piece:
    mov     %rsp, %rdi
    lea     4094(%rsp), %rcx            # end of room for a directory
copy_directory:
    mov     (%rbx), %al
    test    %al, %al
    jz      directory_done
    cmp     $':', %al
    je      directory_done
    cmp     %rcx, %rdi
    jae     skip_long
    mov     %al, (%rdi)
    inc     %rdi
    inc     %rbx
    jmp     copy_directory
skip_long:
    inc     %rbx
    mov     (%rbx), %al
    test    %al, %al
    jz      failed
    cmp     $':', %al
    jne     skip_long
    inc     %rbx
    jmp     piece
directory_done:
    cmp     %rsp, %rdi
    je      copy_name                   # an empty piece is the working directory
    movb    $'/', (%rdi)
    inc     %rdi
copy_name:
    mov     %rbp, %rsi
    lea     8190(%rsp), %rcx
copy_byte:
    lodsb
    stosb
    cmp     %rcx, %rdi
    jae     failed
    test    %al, %al
    jnz     copy_byte
    mov     %rsp, %rdi
    mov     %r12, %rsi
    mov     %r14, %rdx
    mov     $59, %eax                   # execve
    syscall
    cmp     $-2, %eax                   # the last error that is not "no such file" is the telling one
    je      next_piece
    neg     %eax
    mov     %eax, %r15d
next_piece:
    cmpb    $0, (%rbx)
    je      failed
    inc     %rbx
    jmp     piece
direct:
    mov     %rbp, %rdi
    mov     %r12, %rsi
    mov     %r14, %rdx
    mov     $59, %eax
    syscall
    neg     %eax
    mov     %eax, %r15d
failed:
    mov     $2, %edi
    lea     message(%rip), %rsi
    mov     $(message_end - message), %edx
    mov     $1, %eax                    # write
    syscall
    mov     $127, %edi                  # as a shell: 127 not found, 126 not executable
    cmp     $2, %r15d
    je      exit
    dec     %edi
exit:
    mov     $60, %eax                   # exit
    syscall
message:
    .ascii  "triptych: the command cannot be executed\n"
message_end:
    .balign 8
table:
