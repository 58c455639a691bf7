//! A client of `stoker serve` for plain HTTP, with Rust's standard library alone.
//!
//! Each step is numbered. The client keeps a record until the server has it on disk, and sends it again after a
//! cut connection or a restart of the server. So every step is learned exactly once. For TLS, JSON of other
//! shapes or WebSocket, keep `Actor` and replace `Connection` and `field` by crates of your choice.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

const ANSWERS: [&str; 3] = ["gap", "training-done", "unknown-actor"]; // problems that say how to go on
const MOST_RECORDS: usize = 256; // in one message
const MOST_KEPT: usize = 10_000; // then it waits for the server's disk

/// What an action led to.
pub struct Outcome {
    pub observation: Vec<f64>,
    pub reward: f64,
    pub terminated: bool,
    pub truncated: bool,
}

/// One actor: a stream of episodes. The actions are those of a `Discrete` space.
pub struct Actor {
    name: String,
    connection: Connection,
    seq: u64,                     // the number of the last record
    kept: VecDeque<(u64, String)>, // the records that are not on the server's disk yet
    chosen: String,               // the last action, with the server's memo about it, as JSON
    pub is_done: bool,            // whether the training has ended
}

impl Actor {
    /// Continue the stream of this name, also after a restart of this program.
    pub fn connect(address: &str, name: &str, token: Option<&str>) -> io::Result<Actor> {
        let mut connection = Connection::new(address, token);
        let known = connection.request("GET", &format!("/v1/actors/{name}"), "")?;
        let last = if is_problem(&known, "unknown-actor") { 0 } else { number(&known, "next")? - 1 };
        Ok(Actor {
            name: name.to_string(),
            connection,
            seq: last,
            kept: VecDeque::new(),
            chosen: String::new(),
            is_done: false,
        })
    }

    /// Begin an episode. Returns its first action; None: the training has ended.
    pub fn start(&mut self, observation: &[f64]) -> io::Result<Option<i64>> {
        self.send(format!("\"start\":true,\"observation\":{observation:?}"))
    }

    /// Send what the last action led to. Returns the next action; None at the end of an episode.
    pub fn step(&mut self, outcome: &Outcome) -> io::Result<Option<i64>> {
        let Outcome { observation, reward, terminated, truncated } = outcome;
        let chosen = &self.chosen;
        self.send(format!(
            "{chosen},\"reward\":{reward:?},\"observation\":{observation:?},\
             \"terminated\":{terminated},\"truncated\":{truncated}"
        ))
    }

    /// Return when all records are on the server's disk.
    pub fn close(&mut self) -> io::Result<()> {
        while !self.kept.is_empty() && !self.is_done {
            self.post(0, "durable")?;
        }
        Ok(())
    }

    fn send(&mut self, fields: String) -> io::Result<Option<i64>> {
        self.seq += 1;
        let record = format!("{{\"actor\":\"{}\",\"seq\":{},{fields}}}", self.name, self.seq);
        self.kept.push_back((self.seq, record));
        let ack = if self.kept.len() > MOST_KEPT { "durable" } else { "accepted" };
        let answer = self.post_until_taken(ack).inspect_err(|_| {
            self.seq -= 1; // the record was refused, and its number is free for another one
            self.kept.pop_back();
        })?;
        let action = field(&answer, "action").unwrap_or("null");
        let memo = field(&answer, "memo").unwrap_or("null");
        self.chosen = format!("\"action\":{action},\"memo\":{memo}");
        Ok(action.parse().ok())
    }

    fn post_until_taken(&mut self, ack: &str) -> io::Result<String> {
        let mut answer = self.post(self.seq, ack)?;
        while number(&answer, "next")? <= self.seq && !self.is_done {
            // The server was restarted and says from where it needs the records again.
            answer = self.post(number(&answer, "next")?, "accepted")?;
        }
        Ok(answer)
    }

    /// Send the kept records from this number on. Returns the answer.
    fn post(&mut self, from: u64, ack: &str) -> io::Result<String> {
        let records = self.kept.iter().filter(|(seq, _)| *seq >= from).take(MOST_RECORDS);
        let steps: Vec<&str> = records.map(|(_, record)| record.as_str()).collect();
        let body = format!("{{\"steps\":[{}],\"ack\":\"{ack}\"}}", steps.join(","));
        let answer = self.connection.request("POST", "/v1/step", &body)?;
        self.is_done = field(&answer, "training") == Some("\"done\"") || is_problem(&answer, "training-done");
        let (next, durable) = (number(&answer, "next")?, number(&answer, "durable")?);
        if next > self.seq + 1 {
            return Err(io::Error::other(format!("another client plays {}", self.name)));
        }
        self.kept.retain(|(seq, _)| *seq > durable);
        match self.kept.front() {
            Some((first, _)) if next < *first => Err(io::Error::other("the server has lost its run")),
            _ => Ok(answer),
        }
    }
}

/// A connection that is opened again when it is cut.
struct Connection {
    address: String,
    token: Option<String>,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    fn new(address: &str, token: Option<&str>) -> Connection {
        let address = address.trim_start_matches("http://").trim_end_matches('/').to_string();
        Connection { address, token: token.map(str::to_string), stream: None }
    }

    /// Send a request until it is answered. Full, starting, cut or timed out: the same one again is harmless.
    fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<String> {
        let mut wait = Duration::from_millis(20);
        loop {
            let mut pause = wait;
            match self.exchange(method, path, body) {
                Ok((status, _, answer)) if status < 300 => return Ok(answer),
                Ok((_, _, problem)) if ANSWERS.iter().any(|kind| is_problem(&problem, kind)) => return Ok(problem),
                Ok((status, retry_after, _)) if status == 429 || status >= 500 => {
                    pause = pause.max(Duration::from_secs(retry_after));
                }
                Ok((_, _, problem)) => return Err(io::Error::other(problem)),
                Err(_) => self.stream = None,
            }
            sleep(pause);
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// One request and its answer: status, `Retry-After` in seconds, and body.
    fn exchange(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, u64, String)> {
        let mut stream = match self.stream.take() {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                BufReader::new(stream)
            }
        };
        let token = self.token.iter().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{}\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            token.collect::<String>(),
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut retry_after) = (0, 0, 0);
        for number_of_line in 0.. {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if number_of_line == 0 {
                status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(": ") {
                match name {
                    "content-length" => length = value.parse().unwrap_or(0),
                    "retry-after" => retry_after = value.parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        self.stream = Some(stream);
        Ok((status, retry_after, String::from_utf8_lossy(&answer).into_owned()))
    }
}

/// Whether an answer is a problem of this kind, such as "urn:stoker:problem:gap".
fn is_problem(answer: &str, kind: &str) -> bool {
    field(answer, "type").is_some_and(|text| text.ends_with(&format!(":{kind}\"")))
}

/// The value of a field of the server's compact JSON that is a number, a string without escapes, or null.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let after = json.split(&format!("\"{name}\":")).nth(1)?;
    let end = match after.strip_prefix('"') {
        Some(text) => text.find('"')? + 2,
        None => after.find([',', '}'])?,
    };
    Some(&after[..end])
}

fn number(json: &str, name: &str) -> io::Result<u64> {
    let found = field(json, name).and_then(|text| text.parse().ok());
    found.ok_or_else(|| io::Error::other(format!("no {name} in {json}")))
}
