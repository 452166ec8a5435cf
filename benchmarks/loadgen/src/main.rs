//! Load generator and plain-Rust floor. Every reply is checked; any wrong one makes the exit status 1.
//!
//! - `cpu` the only calls of libc: CPU clocks, waiting for a signal to end
//! - `target` where to connect, `tls` the TLS layer over a TCP stream
//! - `exchange` requests and the checks of their replies
//! - `worker` one thread's connections, `datagrams` one thread's UDP sockets
//! - `shared` the state that workers share with the coordinator; `run` the coordinator and the report
//! - `floor` the echo server to compare with

mod cpu;
mod datagrams;
mod exchange;
mod floor;
mod run;
mod shared;
mod target;
mod tls;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

use exchange::{Body, Echo, Exchange, Http};
use run::{Bound, Plan, Traffic};
use target::Target;
use worker::After;

const USAGE: &str = "\
loadgen http    --addr HOST:PORT [--path /] [--body TEXT | --length BYTES]    HTTP/1.1 keep-alive GET
loadgen echo    --addr HOST:PORT | --unix PATH  [--size 1024]                 send, check every byte of the echo
loadgen connect --addr HOST:PORT | --unix PATH  [--closer client|server]      connect, echo of one byte, close
loadgen udp     --addr HOST:PORT  [--size 1024] [--under-way 1]               datagrams, every echo checked
loadgen floor   --port PORT [--udp] | --unix PATH  [--seconds 600] [--once | --http]   the plain-Rust server

of the first four:  [--connections 64] (udp: sockets, each with so many under way)
                    [--threads 1] [--seconds 1 | --requests N] [--warm-up 0.2]
                    [--server-pid PID] measures that process's CPU time over the window
                    [--progress] a JSON line on stderr twice a second   [--json] the report as JSON
                    [--latencies] the report also has each latency that was seen, and how often
of the first three: [--tls PEM] TLS 1.3, the certificate issued for localhost by an authority of that file
Exit status: 0 all replies were right, 1 some were not, 2 wrong arguments.";

struct Options {
    command: String,
    target: Option<Target>,
    connections: usize,
    threads: usize,
    seconds: Option<f64>,
    requests: Option<u64>,
    warm_up: f64,
    size: usize,
    path: String,
    body: Body,
    after: After,
    port: Option<u16>,
    server: Option<i32>,
    progress: bool,
    latencies: bool,
    json: bool,
    once: bool,
    http: bool,
    tls: Option<PathBuf>,
    udp: bool,
    under_way: usize,
}

fn parse() -> Result<Options, String> {
    let mut options = Options {
        command: String::new(),
        target: None,
        connections: 64,
        threads: 1,
        seconds: None,
        requests: None,
        warm_up: 0.2,
        size: 1024,
        path: "/".to_owned(),
        body: Body::Bytes(b"Hello, World!\n".to_vec()),
        after: After::Keep,
        port: None,
        server: None,
        progress: false,
        latencies: false,
        json: false,
        once: false,
        http: false,
        tls: None,
        udp: false,
        under_way: 1,
    };
    let mut parser = lexopt::Parser::from_env();
    read(&mut parser, &mut options).map_err(|error| error.to_string())?;
    let number = |name: &str, value: f64| {
        let fits = value.is_finite() && (0.0..=3600.0).contains(&value);
        if fits { Ok(()) } else { Err(format!("{name} must be between 0 and 3600")) }
    };
    number("--seconds", options.seconds.unwrap_or(1.0))?;
    number("--warm-up", options.warm_up)?;
    let least = options.connections.min(options.threads).min(options.size).min(options.under_way);
    if least == 0 {
        return Err("--connections, --threads, --size and --under-way must be at least 1".to_owned());
    }
    if options.seconds.is_some() && options.requests.is_some() {
        return Err("--seconds and --requests exclude each other".to_owned());
    }
    Ok(options)
}

fn read(parser: &mut lexopt::Parser, options: &mut Options) -> Result<(), lexopt::Error> {
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) if options.command.is_empty() => options.command = word.string()?,
            Long("addr") => options.target = Some(Target::tcp(&parser.value()?.string()?)?),
            Long("unix") => options.target = Some(Target::Unix(parser.value()?.into())),
            Long("connections") => options.connections = parser.value()?.parse()?,
            Long("threads") => options.threads = parser.value()?.parse()?,
            Long("seconds") => options.seconds = Some(parser.value()?.parse()?),
            Long("requests") => options.requests = Some(parser.value()?.parse()?),
            Long("warm-up") => options.warm_up = parser.value()?.parse()?,
            Long("size") => options.size = parser.value()?.parse()?,
            Long("path") => options.path = parser.value()?.string()?,
            Long("body") => options.body = Body::Bytes(parser.value()?.string()?.into_bytes()),
            Long("length") => options.body = Body::Length(parser.value()?.parse()?),
            Long("closer") => {
                options.after = match parser.value()?.string()?.as_str() {
                    "client" => After::Close,
                    "server" => After::AwaitClose,
                    other => {
                        return Err(format!("--closer is client or server, not {other}").into());
                    }
                }
            }
            Long("port") => options.port = Some(parser.value()?.parse()?),
            Long("server-pid") => options.server = Some(parser.value()?.parse()?),
            Long("progress") => options.progress = true,
            Long("latencies") => options.latencies = true,
            Long("tls") => options.tls = Some(parser.value()?.into()),
            Long("udp") => options.udp = true,
            Long("under-way") => options.under_way = parser.value()?.parse()?,
            Long("once") => options.once = true,
            Long("http") => options.http = true,
            Long("json") => options.json = true,
            Long("help") => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let done = parse().and_then(|options| match options.command.as_str() {
        "floor" => serve_floor(&options),
        "http" | "echo" | "connect" | "udp" => load(options),
        "" => Err("no command".to_owned()),
        other => Err(format!("no command {other}")),
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadgen: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn serve_floor(options: &Options) -> Result<ExitCode, String> {
    let listen = match (&options.target, options.port) {
        (Some(Target::Unix(path)), None) if !options.udp => floor::Listen::Unix(path.clone()),
        (None, Some(port)) if options.udp => floor::Listen::Datagrams(port),
        (None, Some(port)) => floor::Listen::Port(port),
        _ => return Err("floor takes either --port or --unix".to_owned()),
    };
    let limit = Duration::from_secs_f64(options.seconds.unwrap_or(600.0));
    let manner = match (options.once, options.http) {
        (true, true) => return Err("--once and --http exclude each other".to_owned()),
        (true, false) => floor::Manner::Once,
        (false, true) => floor::Manner::Http,
        (false, false) => floor::Manner::Echo,
    };
    match floor::serve(&listen, manner, limit) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("loadgen floor: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn load(options: Options) -> Result<ExitCode, String> {
    let mut target = options.target.ok_or("--addr or --unix is missing")?;
    if let Some(roots) = &options.tls {
        target = target.with_tls(tls::config(roots)?)?;
    }
    let host = match &target {
        Target::Tcp(addr) | Target::Tls(addr, _) => addr.to_string(),
        Target::Unix(_) => "localhost".to_owned(),
    };
    let (size, path, body) = (options.size, options.path, options.body);
    let exchange = |index: usize| -> Box<dyn Exchange> {
        match options.command.as_str() {
            "http" => Box::new(Http::new(&host, &path, body.clone())),
            "echo" => Box::new(Echo::new(size, index as u64 + 1)),
            _ => Box::new(Echo::new(1, index as u64 + 1)),
        }
    };
    let after = match options.command.as_str() {
        "connect" if options.after == After::Keep => After::Close,
        "connect" => options.after,
        _ => After::Keep,
    };
    let traffic = match target {
        Target::Tcp(server) if options.command == "udp" && size >= datagrams::MIN_SIZE => {
            Traffic::Datagrams(datagrams::Plan { server, size, under_way: options.under_way })
        }
        _ if options.command == "udp" => {
            return Err(format!("udp takes --addr, no --tls, and --size from {}", datagrams::MIN_SIZE));
        }
        target => Traffic::Streams { target, after, exchange: &exchange },
    };
    let plan = Plan {
        traffic,
        connections: options.connections,
        threads: options.threads,
        bound: match options.requests {
            Some(requests) => Bound::Requests(requests),
            None => Bound::Time(Duration::from_secs_f64(options.seconds.unwrap_or(1.0))),
        },
        warm_up: Duration::from_secs_f64(options.warm_up),
        server: options.server,
        progress: options.progress,
        latencies: options.latencies,
    };
    let report = run::run(&plan)?;
    if options.json {
        println!("{report}");
    } else {
        for (name, value) in report.as_object().expect("run makes an object") {
            println!("{name:>20}  {value}");
        }
    }
    Ok(if report["errors"] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
