//! A TCP proxy in front of one address: it can hold what a client sends from a moment on, and delay everything.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Only a test that waits in vain gets here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Chunks on their way in one direction of one connection.
const CHUNKS: usize = 1024;

/// Stands in front of an address until it is dropped; connections that are open then live on.
pub struct Gate {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    one_way: Duration,
    hold: Mutex<Option<Arc<Hold>>>,
    closed: AtomicBool,
}

/// Nothing that clients send passes from when this becomes true until it is released.
struct Hold {
    begins: Box<dyn Fn() -> bool + Send + Sync>,
    state: Mutex<HoldState>,
    changed: Condvar,
}

#[derive(Default, PartialEq, Eq)]
enum HoldState {
    #[default]
    Armed,
    Holds,
    Released,
}

impl Gate {
    /// Lets everything through to `target` as it comes.
    pub fn to(target: &str) -> Self {
        Self::delayed(target, Duration::ZERO)
    }

    /// Lets everything through so much later, in each direction.
    pub fn delayed(target: &str, one_way: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared { one_way, hold: Mutex::default(), closed: AtomicBool::new(false) });
        let (target, accepting) = (target.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                // Nobody may be there: the client is told so by the end of its connection.
                if let Ok(server) = TcpStream::connect(&target) {
                    accepting.connect(client, server);
                }
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Holds what clients send from when `begins` is true. Connections that are open by now are not concerned.
    pub fn hold_when(&self, begins: impl Fn() -> bool + Send + Sync + 'static) {
        let hold = Hold { begins: Box::new(begins), state: Mutex::default(), changed: Condvar::new() };
        *self.shared.hold.lock() = Some(Arc::new(hold));
    }

    /// Waits until something is held.
    #[track_caller]
    pub fn wait_held(&self) {
        let hold = self.hold();
        let mut state = hold.state.lock();
        let late = hold.changed.wait_while_for(&mut state, |state| *state != HoldState::Holds, PATIENCE).timed_out();
        assert!(!late, "nothing came to the gate");
    }

    /// Lets everything through again, but for what was sent by a client that is gone.
    pub fn release(&self) {
        let hold = self.hold();
        *hold.state.lock() = HoldState::Released;
        hold.changed.notify_all();
    }

    fn hold(&self) -> Arc<Hold> {
        self.shared.hold.lock().clone().expect("there is something to hold")
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn connect(&self, client: TcpStream, server: TcpStream) {
        let hold = self.hold.lock().clone();
        for (from, to, hold) in [(&client, &server, hold), (&server, &client, None)] {
            to.set_nodelay(true).expect("a socket");
            let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
            let (sender, chunks) = sync_channel(CHUNKS);
            let one_way = self.one_way;
            thread::spawn(move || read(from, hold.as_deref(), one_way, &sender));
            thread::spawn(move || write(to, &chunks));
        }
    }
}

fn read(mut from: TcpStream, hold: Option<&Hold>, one_way: Duration, chunks: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if hold.is_some_and(|hold| !hold.lets_pass(&from)) {
            return;
        }
        if chunks.send((Instant::now() + one_way, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn write(mut to: TcpStream, chunks: &Receiver<(Instant, Vec<u8>)>) {
    for (due, chunk) in chunks {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            break;
        }
    }
    let _gone = to.shutdown(Shutdown::Both);
}

impl Hold {
    /// Waits while it holds; false if the client is gone by then.
    fn lets_pass(&self, client: &TcpStream) -> bool {
        let mut state = self.state.lock();
        if *state == HoldState::Released || !(self.begins)() {
            return true;
        }
        *state = HoldState::Holds;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| *state != HoldState::Released);
        client.set_nonblocking(true).expect("a socket");
        let lives = match client.peek(&mut [0]) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        client.set_nonblocking(false).expect("a socket");
        lives
    }
}
