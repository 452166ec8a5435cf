//! The shared work-stealing Tokio runtime: one for the process, built at first use.
//!
//! Its threads block all signals and never touch Python: work given to it is plain Rust and reports back
//! through a loop's inbox. It is never shut down; its threads end with the process. A forked child has none of the
//! threads, so it builds its own at its first use, with the inherited settings unless it changes them.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::sys::thread;

/// The most threads of either kind: more than a machine can use, within the range of Tokio's counters.
const MOST_THREADS: usize = 32_767;

/// How many names are looked up at a time by default.
const RESOLVER_THREADS_DEFAULT: usize = 32;

/// Tokio's own default, to which the threads for names are added.
const MAX_BLOCKING_THREADS_DEFAULT: usize = 512;

/// Each setting's environment variable; [`configure`] takes precedence.
const WORKER_THREADS: &str = "TOKIOLOOP_WORKER_THREADS";
const MAX_BLOCKING_THREADS: &str = "TOKIOLOOP_MAX_BLOCKING_THREADS";
const RESOLVER_THREADS: &str = "TOKIOLOOP_RESOLVER_THREADS";
const THREAD_NAME: &str = "TOKIOLOOP_THREAD_NAME";

/// The settings of the runtime; None means the environment's, or else Tokio's default.
#[derive(Clone, Default)]
pub struct Settings {
    pub worker_threads: Option<usize>,
    pub max_blocking_threads: Option<usize>,
    pub resolver_threads: Option<usize>,
    pub thread_name: Option<String>,
}

/// Why [`configure`] refused.
#[derive(Debug)]
pub enum Refused {
    /// A value that no runtime can be built with.
    Invalid(String),
    /// The runtime runs in this process already.
    Started,
}

/// The figures of the runtime at one moment; all 0 before it is started.
#[derive(Clone, Copy, Default)]
pub struct Metrics {
    pub started: bool,
    pub worker_threads: usize,
    pub alive_tasks: usize,
    pub blocking_threads: usize,
    pub idle_blocking_threads: usize,
    /// Blocking calls that no thread has begun.
    pub blocking_queue_depth: usize,
    /// Tasks that no worker has taken.
    pub global_queue_depth: usize,
    /// Look-ups of names that run, and those that wait for their turn.
    pub running_lookups: usize,
    pub waiting_lookups: usize,
}

/// Figures that Tokio gives with its unstable features only, counted here.
#[derive(Default)]
struct Figures {
    threads: AtomicUsize,
    waiting: AtomicUsize,
    running: AtomicUsize,
}

struct Started {
    /// The threads of a forked child's copy are not there.
    process: u32,
    runtime: Runtime,
    figures: &'static Figures,
    lookups: Lookups,
}

type Work = Box<dyn FnOnce() + Send>;

/// Look-ups of names. They may be stuck for as long as the resolver is, and can't be stopped; so they have a limit of their own, and
/// wait for their turn here, where a cancelled one can be removed.
struct Lookups {
    limit: usize,
    state: Mutex<LookupsState>,
}

#[derive(Default)]
struct LookupsState {
    running: usize,
    next: u64,
    /// By their numbers, the first asked first.
    waiting: BTreeMap<u64, Work>,
}

/// A requested look-up.
pub struct Lookup {
    process: u32,
    lookups: &'static Lookups,
    number: u64,
}

impl Lookup {
    /// Drops it if it still waits for its turn. A running one continues. Any thread.
    pub fn withdraw(&self) {
        // A forked child has none of its parent's threads, and one of those may have held the lock.
        if self.process != std::process::id() {
            return;
        }
        let withdrawn = self.lookups.state.lock().waiting.remove(&self.number);
        drop(withdrawn);
    }
}

impl Lookups {
    /// The work of a thread of the pool: one look-up after the other.
    fn run(&self) {
        loop {
            let work = {
                let mut state = self.state.lock();
                match state.waiting.pop_first() {
                    Some((_, work)) => work,
                    None => {
                        state.running -= 1;
                        return;
                    }
                }
            };
            // A look-up that panics must not take its thread from the others.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }
}

struct State {
    settings: Settings,
    started: Option<&'static Started>,
}

impl State {
    fn here(&self) -> Option<&'static Started> {
        self.started.filter(|started| started.process == std::process::id())
    }
}

static STATE: Mutex<State> = Mutex::new(State {
    settings: Settings {
        worker_threads: None,
        max_blocking_threads: None,
        resolver_threads: None,
        thread_name: None,
    },
    started: None,
});

/// Sets how the runtime will be built; None leaves a setting unchanged.
pub fn configure(settings: Settings) -> Result<(), Refused> {
    for (name, count) in [
        ("worker_threads", settings.worker_threads),
        ("max_blocking_threads", settings.max_blocking_threads),
        ("resolver_threads", settings.resolver_threads),
    ] {
        count.map_or(Ok(()), |count| check_count(name, count)).map_err(Refused::Invalid)?;
    }
    if let Some(name) = &settings.thread_name {
        check_name("thread_name", name).map_err(Refused::Invalid)?;
    }
    let mut state = STATE.lock();
    if state.here().is_some() {
        return Err(Refused::Started);
    }
    let former = std::mem::take(&mut state.settings);
    state.settings = Settings {
        worker_threads: settings.worker_threads.or(former.worker_threads),
        max_blocking_threads: settings.max_blocking_threads.or(former.max_blocking_threads),
        resolver_threads: settings.resolver_threads.or(former.resolver_threads),
        thread_name: settings.thread_name.or(former.thread_name),
    };
    Ok(())
}

fn check_count(name: &str, count: usize) -> Result<(), String> {
    match count {
        1..=MOST_THREADS => Ok(()),
        _ => Err(format!("{name} must be from 1 to {MOST_THREADS}, not {count}")),
    }
}

fn check_name(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains('\0') {
        return Err(format!("{name} must not be empty, nor hold a null character"));
    }
    Ok(())
}

/// A variable of the environment; an empty one counts as unset.
fn variable(name: &str) -> Result<Option<String>, String> {
    match std::env::var_os(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value.into_string().map(Some).map_err(|_| format!("{name} is not valid UTF-8")),
    }
}

fn count_from(name: &str) -> Result<Option<usize>, String> {
    let Some(text) = variable(name)? else { return Ok(None) };
    let count = text
        .trim()
        .parse()
        .map_err(|_| format!("{name} must be a number from 1 to {MOST_THREADS}, not {text:?}"))?;
    check_count(name, count).map(|()| Some(count))
}

impl Settings {
    /// Fills what was not set from the environment.
    fn completed(&self) -> Result<Self, String> {
        let or_count =
            |given: Option<usize>, name| given.map_or_else(|| count_from(name), |count| Ok(Some(count)));
        let thread_name = match &self.thread_name {
            Some(name) => Some(name.clone()),
            None => variable(THREAD_NAME)?,
        };
        thread_name.as_ref().map_or(Ok(()), |name| check_name(THREAD_NAME, name))?;
        Ok(Self {
            worker_threads: or_count(self.worker_threads, WORKER_THREADS)?,
            max_blocking_threads: or_count(self.max_blocking_threads, MAX_BLOCKING_THREADS)?,
            resolver_threads: or_count(self.resolver_threads, RESOLVER_THREADS)?,
            thread_name,
        })
    }
}

/// The runtime; the first call in a process starts it. `InvalidInput` for an invalid setting in the environment.
fn started() -> io::Result<&'static Started> {
    let mut state = STATE.lock();
    if let Some(started) = state.here() {
        return Ok(started);
    }
    let settings =
        state.settings.completed().map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))?;
    let figures: &'static Figures = Box::leak(Box::default());
    let mut builder = Builder::new_multi_thread();
    builder
        .thread_name(settings.thread_name.unwrap_or_else(|| "tokioloop".to_owned()))
        .on_thread_start(|| {
            thread::block_all_signals();
            figures.threads.fetch_add(1, Ordering::Relaxed);
        })
        .on_thread_stop(|| {
            figures.threads.fetch_sub(1, Ordering::Relaxed);
        });
    if let Some(count) = settings.worker_threads {
        builder.worker_threads(count);
    }
    // The threads for names are added, so that neither kind of work takes the other's.
    let limit = settings.resolver_threads.unwrap_or(RESOLVER_THREADS_DEFAULT);
    let others = settings.max_blocking_threads.unwrap_or(MAX_BLOCKING_THREADS_DEFAULT);
    builder.max_blocking_threads(others + limit);
    let runtime = starting_threads(|| builder.build())??;
    let lookups = Lookups { limit, state: Mutex::default() };
    let started = Box::leak(Box::new(Started { process: std::process::id(), runtime, figures, lookups }));
    state.started = Some(started);
    // Printing it may block, and no other thread must wait for that.
    drop(state);
    tracing::debug!(workers = started.runtime.metrics().num_workers(), "runtime started");
    Ok(started)
}

/// The runtime's handle; the first call starts it.
pub fn handle() -> io::Result<&'static Handle> {
    Ok(started()?.runtime.handle())
}

/// The runtime's figures. Starts nothing. They are read one after the other while its threads go on.
pub fn metrics() -> Metrics {
    let Some(Started { runtime, figures, lookups, .. }) = STATE.lock().here() else {
        return Metrics::default();
    };
    let (running_lookups, waiting_lookups) = {
        let state = lookups.state.lock();
        (state.running, state.waiting.len())
    };
    let tokio = runtime.metrics();
    let worker_threads = tokio.num_workers();
    // Workers are threads of the blocking pool that never come back to it.
    let blocking_threads = figures.threads.load(Ordering::Relaxed).saturating_sub(worker_threads);
    Metrics {
        started: true,
        worker_threads,
        alive_tasks: tokio.num_alive_tasks(),
        blocking_threads,
        idle_blocking_threads: blocking_threads.saturating_sub(figures.running.load(Ordering::Relaxed)),
        blocking_queue_depth: figures.waiting.load(Ordering::Relaxed),
        global_queue_depth: tokio.global_queue_depth(),
        running_lookups,
        waiting_lookups,
    }
}

/// Counted for as long as it lives.
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks a name up on the runtime's blocking pool, when it is its turn.
pub fn spawn_lookup(work: impl FnOnce() + Send + 'static) -> io::Result<Lookup> {
    let Started { runtime, figures, lookups, process } = started()?;
    let waiting = Counted::new(&figures.waiting);
    let counted = Box::new(move || {
        drop(waiting);
        let _running = Counted::new(&figures.running);
        work();
    });
    let (number, starts) = {
        let mut state = lookups.state.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, counted);
        let starts = state.running < lookups.limit;
        state.running += usize::from(starts);
        (number, starts)
    };
    let lookup = Lookup { process: *process, lookups, number };
    if starts
        // The pool starts threads from the calling one: they must not inherit an open signal mask even for a moment.
        && let Err(error) = starting_threads(|| drop(runtime.spawn_blocking(|| lookups.run())))
    {
        let mut state = lookups.state.lock();
        state.running -= 1;
        // Where others run, it will be its turn after them.
        if state.running == 0 {
            drop(state);
            lookup.withdraw();
            return Err(error);
        }
    }
    Ok(lookup)
}

/// Runs `start` with all signals blocked. Tokio panics where the system refuses a thread; here that is an error.
fn starting_threads<R>(start: impl FnOnce() -> R) -> io::Result<R> {
    let start = AssertUnwindSafe(|| thread::with_signals_blocked(start));
    catch_unwind(start).map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    #[test]
    fn blocking_work_runs_with_all_signals_blocked() {
        let (sender, receiver) = std::sync::mpsc::channel();
        super::spawn_lookup(move || {
            // SAFETY: reads the thread's mask into a valid set.
            let blocked = unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
                libc::sigismember(&set, libc::SIGINT) == 1 && libc::sigismember(&set, libc::SIGTERM) == 1
            };
            sender.send(blocked).expect("the test waits");
        })
        .expect("the runtime starts");
        assert!(receiver.recv().expect("the work runs"));
    }

    #[test]
    fn one_that_waits_can_be_taken_back_and_one_that_panics_harms_nobody() {
        use std::sync::mpsc::channel;
        let ((held, hold), (said, heard)) = (channel::<()>(), channel());
        // As many as there is room for, none of which ends before the test releases it.
        let hold = std::sync::Arc::new(std::sync::Mutex::new(hold));
        let block = || {
            let (hold, said) = (hold.clone(), said.clone());
            super::spawn_lookup(move || {
                said.send("runs").expect("the test waits");
                let _ = hold.lock().expect("no panic inside").recv();
            })
            .expect("the runtime starts")
        };
        let blocking: Vec<_> = (0..super::RESOLVER_THREADS_DEFAULT).map(|_| block()).collect();
        for _ in &blocking {
            heard.recv().expect("it runs");
        }
        let panicking = super::spawn_lookup(|| panic!("on purpose")).expect("it waits");
        let again = said.clone();
        let taken_back =
            super::spawn_lookup(move || again.send("unwanted").expect("the test waits")).expect("it waits");
        let last = super::spawn_lookup(move || said.send("last").expect("the test waits")).expect("it waits");
        assert!(super::metrics().waiting_lookups >= 3);
        taken_back.withdraw();
        taken_back.withdraw();
        blocking[0].withdraw();
        drop(held);
        assert_eq!(heard.recv(), Ok("last"));
        panicking.withdraw();
        last.withdraw();
        drop((hold, blocking));
    }
}
