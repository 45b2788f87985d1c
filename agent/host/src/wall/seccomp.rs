//! Seccomp: the system calls that are left. Two filters, of whose answers the kernel takes the harder.
//!
//! What the room has no use for fails with EPERM, so that a library that tries something falls back and goes on. What no
//! honest path of this program can come to (another program, another process's memory, a socket) ends the process: whoever
//! tries it has taken it over.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use super::Room;

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// What both rooms do: memory, time, waiting, the files that they were given, the end.
const COMMON: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The socket to the agent, which is open already; and waiting for it.
const WORKER: &[c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
];

/// The two files, which are open already.
const COMPILER: &[c_long] =
    &[libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_lseek, libc::SYS_pread64, libc::SYS_pwrite64];

/// What ends the process.
const TELLING: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_add_key,
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_connect,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_listen,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_setns,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

pub(super) fn apply(room: Room) -> Result<String, String> {
    let shown = |e: &dyn std::fmt::Display| e.to_string();
    let (telling, allowed) = programs(room).map_err(|e| shown(&e))?;
    apply_filter_all_threads(&telling).map_err(|e| shown(&e))?;
    apply_filter_all_threads(&allowed).map_err(|e| shown(&e))?;
    let own = match room {
        Room::Worker => WORKER,
        Room::Compiler => COMPILER,
    };
    // The four that are allowed in part.
    Ok(format!("{} system calls are left", COMMON.len() + own.len() + 4))
}

fn programs(room: Room) -> Result<(BpfProgram, BpfProgram), seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let telling: Rules = TELLING.iter().map(|call| (*call, Vec::new())).collect();
    let telling = SeccompFilter::new(telling, SeccompAction::Allow, SeccompAction::KillProcess, arch)?;
    let own = match room {
        Room::Worker => WORKER,
        Room::Compiler => COMPILER,
    };
    let mut allowed: Rules = COMMON.iter().chain(own).map(|call| (*call, Vec::new())).collect();
    let condition =
        |argument, length, operator, value| SeccompCondition::new(argument, length, operator, value);
    let (double, quad) = (SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword);
    // Memory becomes executable by mprotect alone, and not while it is writable.
    let exec = u64::from(libc::PROT_EXEC.cast_unsigned());
    let both = u64::from((libc::PROT_EXEC | libc::PROT_WRITE).cast_unsigned());
    let not_executable = condition(2, double.clone(), SeccompCmpOp::MaskedEq(exec), 0)?;
    allowed.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![not_executable])?]);
    // Either without the one or without the other.
    let no_exec = condition(2, double.clone(), SeccompCmpOp::MaskedEq(exec), 0)?;
    let no_write = condition(2, double.clone(), SeccompCmpOp::MaskedEq(both), exec)?;
    allowed.insert(
        libc::SYS_mprotect,
        vec![SeccompRule::new(vec![no_exec])?, SeccompRule::new(vec![no_write])?],
    );
    // To the agent, and to nowhere that an address names.
    let no_address = condition(4, quad, SeccompCmpOp::Eq, 0)?;
    if room == Room::Worker {
        allowed.insert(libc::SYS_sendto, vec![SeccompRule::new(vec![no_address])?]);
    }
    // `abort` signals the thread itself.
    let me = u64::from(std::process::id());
    let self_alone = condition(0, double, SeccompCmpOp::Eq, me)?;
    allowed.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![self_alone])?]);
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let allowed = SeccompFilter::new(allowed, refuse, SeccompAction::Allow, arch)?;
    Ok((telling.try_into()?, allowed.try_into()?))
}
