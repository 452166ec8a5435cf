//! Coordinates a run: workers on threads, warm-up, the measured window, the report.

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::exchange::Exchange;
use crate::shared::{MEASURE, STOP, Seen, Shared, WARM_UP};
use crate::target::Target;
use crate::worker::{self, After};
use crate::{cpu, datagrams};

/// The bound of the measured window.
#[derive(Clone, Copy)]
pub enum Bound {
    Time(Duration),
    /// Counted from the first request, without warm-up.
    Requests(u64),
}

/// The traffic on the connections.
pub enum Traffic<'a> {
    /// `exchange(i)` makes the exchange of connection `i`.
    Streams {
        target: Target,
        after: After,
        exchange: &'a dyn Fn(usize) -> Box<dyn Exchange>,
    },
    Datagrams(datagrams::Plan),
}

pub struct Plan<'a> {
    pub traffic: Traffic<'a>,
    pub connections: usize,
    pub threads: usize,
    pub bound: Bound,
    pub warm_up: Duration,
    /// The process whose CPU time is measured over the window.
    pub server: Option<i32>,
    pub progress: bool,
    /// The report has all latencies, so that those of several runs can be pooled.
    pub latencies: bool,
}

/// A whole run ends within this, whatever the server does.
const LIMIT: Duration = Duration::from_secs(300);
const WARM_LIMIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(2);
const PROGRESS: Duration = Duration::from_millis(500);

/// Runs `plan` and returns the report.
pub fn run(plan: &Plan) -> Result<Value, String> {
    let shared = Shared::default();
    let timed = matches!(plan.bound, Bound::Time(_));
    shared.phase.store(if timed { WARM_UP } else { MEASURE }, Ordering::Relaxed);
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let mut workers = Vec::new();
    for number in 0..threads {
        let share = (number..plan.connections).step_by(threads);
        let quota = match plan.bound {
            Bound::Time(_) => u64::MAX,
            Bound::Requests(all) => all / threads as u64 + u64::from((number as u64) < all % threads as u64),
        };
        let job = job(&plan.traffic, share, quota, &shared);
        workers.push(job.map_err(|error| format!("a worker: {error}"))?);
    }
    let mut window = Window::default();
    let seen: Vec<Seen> = thread::scope(|scope| {
        let mut first_cpu = server_cpu(plan);
        let mut first = Instant::now();
        let running: Vec<_> = workers.into_iter().map(|worker| scope.spawn(worker)).collect();
        let alive = || shared.finished.load(Ordering::Relaxed) < threads;
        if timed {
            let begun = Instant::now();
            while alive()
                && shared.warm.load(Ordering::Relaxed) < plan.connections
                && begun.elapsed() < WARM_LIMIT
            {
                thread::sleep(STEP);
            }
            wait(plan.warm_up, &alive);
            first_cpu = server_cpu(plan);
            first = Instant::now();
            shared.phase.store(MEASURE, Ordering::Relaxed);
        }
        let length = if let Bound::Time(length) = plan.bound { length } else { LIMIT };
        watch(plan, &shared, first, length, &alive);
        // A server that got no core in a short window gets more time; one that is stuck loses its connections.
        while alive() && shared.replies.load(Ordering::Relaxed) == 0 && first.elapsed() < length + WARM_LIMIT
        {
            thread::sleep(STEP);
        }
        window.seconds = first.elapsed().as_secs_f64();
        window.cpu = first_cpu.and_then(|from| Some(server_cpu(plan)?.saturating_sub(from)));
        window.requests = shared.replies.load(Ordering::Relaxed);
        shared.phase.store(STOP, Ordering::Relaxed);
        running.into_iter().map(|thread| thread.join().expect("a worker never panics")).collect()
    });
    let mut out = report(plan, &window, seen);
    if let Bound::Requests(all) = plan.bound
        && window.requests < all
        && out["errors"] == 0
    {
        out["errors"] = json!(1);
        out["first_error"] =
            json!(format!("{} of {all} requests within {} s", window.requests, LIMIT.as_secs()));
    }
    Ok(out)
}

type Job<'a> = Box<dyn FnOnce() -> Seen + Send + 'a>;

/// The work of one worker.
fn job<'a>(
    traffic: &'a Traffic,
    share: impl Iterator<Item = usize>,
    quota: u64,
    shared: &'a Shared,
) -> io::Result<Job<'a>> {
    Ok(match traffic {
        Traffic::Streams { target, after, exchange } => {
            let worker = worker::Worker::new(target, *after, quota, shared, share.map(exchange).collect())?;
            Box::new(|| worker.run())
        }
        Traffic::Datagrams(plan) => {
            let worker = datagrams::Worker::new(plan, share, quota, shared)?;
            Box::new(|| worker.run())
        }
    })
}

#[derive(Default)]
struct Window {
    seconds: f64,
    requests: u64,
    cpu: Option<Duration>,
}

fn server_cpu(plan: &Plan) -> Option<Duration> {
    cpu::of_process(plan.server?).ok()
}

/// Sleeps through `length` in steps, so that a run whose connections all died ends early.
fn wait(length: Duration, alive: &dyn Fn() -> bool) {
    let begun = Instant::now();
    while alive() && begun.elapsed() < length {
        thread::sleep(STEP.min(length.saturating_sub(begun.elapsed())));
    }
}

fn watch(plan: &Plan, shared: &Shared, first: Instant, length: Duration, alive: &dyn Fn() -> bool) {
    let (mut last, mut counted) = (first, 0);
    while alive() && first.elapsed() < length {
        let left = length.saturating_sub(first.elapsed());
        if !plan.progress {
            wait(left, alive);
            continue;
        }
        wait(left.min(PROGRESS), alive);
        let now = shared.replies.load(Ordering::Relaxed);
        let rps = (now - counted) as f64 / last.elapsed().as_secs_f64();
        let line = json!({"t": round(first.elapsed().as_secs_f64()), "requests": now, "rps": rps.round()});
        eprintln!("{line}");
        (last, counted) = (Instant::now(), now);
    }
}

fn report(plan: &Plan, window: &Window, workers: Vec<Seen>) -> Value {
    let mut seen = Seen::default();
    for one in workers {
        seen.add(one);
    }
    if window.requests == 0 && seen.errors == 0 {
        seen.fail("not one reply in the measured window");
    }
    let at = |quantile| round(seen.latency_ns.value_at_quantile(quantile) as f64 / 1000.0);
    let mut out = json!({
        "requests": window.requests,
        "errors": seen.errors,
        "seconds": round(window.seconds),
        "rps": (window.requests as f64 / window.seconds.max(1e-9)).round(),
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "loadgen_cpu_s": round(cpu::own().as_secs_f64()),
    });
    if plan.latencies {
        let each = seen.latency_ns.iter_recorded();
        out["latencies_us"] = each
            .map(|step| json!([round(step.value_iterated_to() as f64 / 1000.0), step.count_at_value()]))
            .collect();
    }
    if let Traffic::Datagrams(_) = plan.traffic {
        out["lost"] = json!(seen.lost);
    }
    if let Some(error) = seen.first_error {
        out["first_error"] = json!(error);
    }
    if let Some(cpu) = window.cpu {
        out["server_cpu_s"] = json!(cpu.as_secs_f64());
        if window.requests > 0 {
            out["cpu_us_per_request"] = json!(round(cpu.as_secs_f64() * 1e6 / window.requests as f64));
        }
    }
    out
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
