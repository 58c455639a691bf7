// Actors that write down each record before they send it, by HTTP requests over TcpStream: see ledger.py.
// ledger PORT FILE FIRST N RECORDS
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

struct Actor {
    number: u64,
    name: String,
    port: u16,
    connection: Option<BufReader<TcpStream>>,
    ledger: Arc<Mutex<File>>,
    seq: u64,
    episode: i64,
    step: u64,
    length: u64,
    action: String,
    unsafe_records: Vec<(u64, String)>,
}

/// The text behind `"key":` in the part of the answer that is about this actor.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let begin = text.find(&format!("\"{key}\":"))? + key.len() + 3;
    let rest = &text[begin..];
    Some(&rest[..rest.find([',', '}'])?])
}

fn number(text: &str, key: &str) -> Option<u64> {
    value(text, key)?.trim().parse().ok()
}

impl Actor {
    fn new_record(&mut self) {
        self.seq += 1;
        let start = self.step == self.length || (self.episode % 11 == 7 && 2 * self.step > self.length);
        if start {
            self.episode += 1;
            self.step = 0;
            self.length = 3 + (7 * self.number + 5 * self.episode as u64) % 29;
        } else {
            self.step += 1;
        }
        let (name, seq) = (&self.name, self.seq);
        let observation = format!("[{},{},{},{}]", self.number, seq % 1000, self.step, self.episode % 100);
        let (mut moved, mut end) = (String::from(",\"start\":true"), 0);
        let (mut action, mut reward) = ("null".to_string(), "null".to_string());
        if !start {
            action = self.action.clone();
            reward = (((37 * seq + self.number) % 101) as f64 / 8.0).to_string();
            moved = format!(",\"action\":{action},\"reward\":{reward}");
            if self.step == self.length {
                end = if (self.episode as u64 + self.number) % 2 == 1 { 1 } else { 2 };
                moved += if end == 1 { ",\"terminated\":true" } else { ",\"truncated\":true" };
            }
        }
        let line = format!("[\"{name}\",{seq},{start},{observation},{action},{reward},{end}]\n");
        self.ledger.lock().unwrap().write_all(line.as_bytes()).unwrap();
        let record = format!("{{\"actor\":\"{name}\",\"seq\":{seq},\"observation\":{observation}{moved}}}");
        self.unsafe_records.push((seq, record));
    }

    fn play(&mut self, n_records: u64) {
        while self.seq < n_records {
            self.new_record();
            self.send(self.seq, "accepted");
        }
        while !self.unsafe_records.is_empty() {
            self.send(self.seq, "durable");
        }
    }

    /// Send records from this one on, again from where the server says, until it has taken all.
    fn send(&mut self, mut from: u64, ack: &str) {
        loop {
            let steps: Vec<&str> =
                self.unsafe_records.iter().filter(|(seq, _)| *seq >= from).map(|(_, text)| text.as_str()).collect();
            let body = format!("{{\"steps\":[{}],\"ack\":\"{ack}\"}}", steps.join(","));
            let answer = self.post(&body);
            let mine = answer.find("\"actors\":").map(|at| &answer[at..]).unwrap_or("");
            let next = number(mine, "next").unwrap_or_else(|| panic!("no next in {answer}"));
            let durable = number(mine, "durable").unwrap_or(0);
            self.unsafe_records.retain(|(seq, _)| *seq > durable);
            if next > self.seq {
                self.action = value(mine, "action").unwrap_or("null").trim().to_string();
                return;
            }
            from = next;
        }
    }

    fn post(&mut self, body: &str) -> String {
        let mut wait = Duration::from_millis(10);
        loop {
            match self.try_post(body) {
                Ok((200 | 409, answer)) => return answer,
                Ok((429 | 503, _)) => {}
                Ok((status, answer)) => {
                    eprintln!("refused with {status}: {answer}");
                    std::process::exit(1);
                }
                Err(_) => self.connection = None, // cut: the same request again is harmless
            }
            thread::sleep(wait);
            wait = (2 * wait).min(Duration::from_secs(1));
        }
    }

    fn try_post(&mut self, body: &str) -> std::io::Result<(u16, String)> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.set_nodelay(true)?;
            self.connection = Some(BufReader::new(stream));
        }
        let reader = self.connection.as_mut().unwrap();
        let head = "POST /v1/step HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n";
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        reader.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(broken)?;
        let (mut length, mut closes) = (0, false);
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(broken());
            }
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(text) = header.strip_prefix("content-length:") {
                length = text.trim().parse().map_err(|_| broken())?;
            }
            closes |= header == "connection: close";
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        if closes {
            self.connection = None;
        }
        Ok((status, String::from_utf8_lossy(&answer).into_owned()))
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let numbers: Vec<u64> = words[3..].iter().map(|word| word.parse().unwrap()).collect();
    let ledger = Arc::new(Mutex::new(File::create(&words[2]).unwrap()));
    let port = words[1].parse().unwrap();
    let n_records = numbers[2];
    let actors: Vec<_> = (numbers[0]..numbers[0] + numbers[1])
        .map(|number| Actor {
            number,
            name: format!("rs-{number}"),
            port,
            connection: None,
            ledger: ledger.clone(),
            seq: 0,
            episode: -1,
            step: 0,
            length: 0,
            action: String::new(),
            unsafe_records: Vec::new(),
        })
        .map(|mut actor| thread::spawn(move || actor.play(n_records)))
        .collect();
    for actor in actors {
        actor.join().unwrap();
    }
}
