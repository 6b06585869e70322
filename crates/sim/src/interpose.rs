//! The clocks and the randomness of this process.
//!
//! A linker resolves `clock_gettime` and `getrandom` to the definitions here before it looks into libc, so that the standard
//! library and every dependency see simulated clocks and seeded random bytes. That is why this crate is never linked into
//! the product. Before [`start`] the real ones answer.
//!
//! The monotone clock stands still within a step of the simulation; tokio's own clock, which all of our code uses, does not.
//! The wall clock is the monotone one plus an offset that faults may change: no decision of the product depends on it.
#![expect(unsafe_code, reason = "symbols of libc are replaced, and called, by their C interface")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Where the wall clock begins, in nanoseconds since the Unix epoch: a day in 2033.
const WALL_EPOCH_NANOS: i64 = 2_000_000_000 * 1_000_000_000;
/// Where the monotone clock begins: instants before the start can be represented.
const MONOTONE_EPOCH_NANOS: u64 = 1_000_000 * 1_000_000_000;

static STARTED: AtomicBool = AtomicBool::new(false);
static NOW_NANOS: AtomicU64 = AtomicU64::new(0);
static WALL_OFFSET_NANOS: AtomicI64 = AtomicI64::new(0);
static RANDOM: Mutex<Option<SmallRng>> = Mutex::new(None);

/// From here on this process has simulated clocks, and all its randomness comes from `seed`.
pub fn start(seed: u64) {
    let mut random = RANDOM.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *random = Some(SmallRng::seed_from_u64(seed));
    drop(random);
    STARTED.store(true, Ordering::SeqCst);
}

/// Sets the monotone clock, in nanoseconds since the start.
pub fn set_now_nanos(nanos: u64) {
    NOW_NANOS.store(nanos, Ordering::SeqCst);
}

/// Microseconds since the start.
pub fn now_micros() -> u64 {
    NOW_NANOS.load(Ordering::SeqCst) / 1_000
}

/// Moves the wall clock of the whole cluster, forward or back.
pub fn jump_wall_clock(millis: i64) {
    WALL_OFFSET_NANOS.fetch_add(millis.saturating_mul(1_000_000), Ordering::SeqCst);
}

fn monotone_nanos() -> u64 {
    MONOTONE_EPOCH_NANOS.saturating_add(NOW_NANOS.load(Ordering::SeqCst))
}

fn wall_nanos() -> u64 {
    let now = i64::try_from(NOW_NANOS.load(Ordering::SeqCst)).unwrap_or(i64::MAX);
    let wall = WALL_EPOCH_NANOS.saturating_add(now).saturating_add(WALL_OFFSET_NANOS.load(Ordering::SeqCst));
    u64::try_from(wall).unwrap_or(0)
}

/// # Safety
/// As in POSIX: `time` points to a writable `timespec`.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if !STARTED.load(Ordering::SeqCst) {
        // SAFETY: the kernel's own call with the caller's arguments.
        let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return libc::c_int::try_from(result).unwrap_or(-1);
    }
    let nanos = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => wall_nanos(),
        _ => monotone_nanos(),
    };
    let seconds = libc::time_t::try_from(nanos / 1_000_000_000).unwrap_or(libc::time_t::MAX);
    let rest = libc::c_long::try_from(nanos % 1_000_000_000).unwrap_or(0);
    // SAFETY: the caller promised that `time` is writable.
    unsafe { time.write(libc::timespec { tv_sec: seconds, tv_nsec: rest }) };
    0
}

/// # Safety
/// As in Linux: `buffer` points to `length` writable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: usize, flags: libc::c_uint) -> isize {
    if buffer.is_null() || length == 0 {
        return 0;
    }
    let mut random = RANDOM.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match random.as_mut() {
        Some(random) => {
            // SAFETY: the caller promised `length` writable bytes, and nobody else has a reference to them.
            let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
            random.fill_bytes(bytes);
            isize::try_from(length).unwrap_or(isize::MAX)
        }
        // SAFETY: the kernel's own call with the caller's arguments.
        None => unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize },
    }
}

/// # Safety
/// As in Linux: `buffer` points to `length` writable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getentropy(buffer: *mut libc::c_void, length: usize) -> libc::c_int {
    // SAFETY: the same promise.
    let filled = unsafe { getrandom(buffer, length, 0) };
    if usize::try_from(filled) == Ok(length) { 0 } else { -1 }
}
