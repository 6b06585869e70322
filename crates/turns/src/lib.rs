//! What the scheduler is told about threads that others wait for.
//!
//! A thread that syncs a disk works for microseconds and waits for the rest. When its disk is done on a busy machine it queues
//! behind threads that compute, for the rest of their turns: some milliseconds, an order of magnitude more than the sync. Linux
//! lets a thread that asks for shorter turns run before those with longer ones, without giving it more time in all (EEVDF, from
//! 6.12 on; `sched_setattr(2)`, `sched_runtime` under `SCHED_OTHER`). Needs no privilege, and unlike `nice` costs nobody else.

use std::io;
#[cfg(target_os = "linux")]
use std::time::Duration;

/// The shortest turn that Linux gives.
#[cfg(target_os = "linux")]
const SHORT: Duration = Duration::from_micros(100);

/// Asks for turns of 0.1 ms, the shortest that Linux gives, for the calling thread and the threads that it will start. What
/// else is known about the thread stays as it is. Kernels before 6.12 take note and do nothing; other systems have no such
/// thing.
///
/// # Errors
/// What the system said, for example in a sandbox that forbids the call. The thread goes on as before.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "two system calls that no library wraps")]
pub fn take_short_turns() -> io::Result<()> {
    const MYSELF: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    let mut about = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = about.size;
    // SAFETY: the kernel writes at most `size` bytes, which is what `about` has; every bit pattern is a value of its fields.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, MYSELF, &raw mut about, size, NO_FLAGS) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    // An operator gave it another class: there the same field means something else.
    if !matches!(i32::try_from(about.sched_policy), Ok(libc::SCHED_OTHER | libc::SCHED_BATCH)) {
        return Ok(());
    }
    about.size = size;
    about.sched_runtime = u64::try_from(SHORT.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `size` bytes of `about` and keeps no reference to it.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, MYSELF, &raw const about, NO_FLAGS) };
    if written == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As on Linux, where there is such a thing.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn take_short_turns() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    /// Of the calling thread, in nanoseconds.
    #[allow(unsafe_code, reason = "see above")]
    fn turn() -> u64 {
        // SAFETY: all fields are integers, for which zero is a value.
        let mut about: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::sched_attr>();
        // SAFETY: the kernel writes at most `size` bytes.
        let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut about, size, 0) };
        assert_eq!(read, 0, "{}", io::Error::last_os_error());
        about.sched_runtime
    }

    #[test]
    fn a_thread_and_those_that_it_starts_have_short_turns_and_others_do_not() {
        let before = turn();
        let (mine, child) = thread::spawn(|| {
            take_short_turns().unwrap();
            (turn(), thread::spawn(turn).join().unwrap())
        })
        .join()
        .unwrap();
        // A kernel that does not know of it says nothing.
        if before != 0 {
            assert_eq!((mine, child), (100_000, 100_000));
        }
        assert_eq!(turn(), before);
    }
}
