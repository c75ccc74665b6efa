//! A small HTTP server that keeps what it is sent, and answers as a test says.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// One request that came.
#[derive(Debug, Clone)]
pub struct Received {
    /// What it was answered; 0 where it was left without an answer.
    pub answered: u16,
    /// With path and query.
    pub target: String,
    /// The header's lines, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The server. Its threads end with the test.
pub struct Receiver {
    /// Without a slash at its end.
    pub url: String,
    status: Arc<AtomicU16>,
    received: Arc<Mutex<Vec<Received>>>,
}

/// Takes requests and never answers.
pub const HANG: u16 = 0;

impl Receiver {
    /// Answers every request with `status`.
    pub fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (status, received) = (Arc::new(AtomicU16::new(status)), Arc::new(Mutex::new(Vec::new())));
        let (answers, kept) = (status.clone(), received.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, kept) = (answers.clone(), kept.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &answers, &kept));
            }
        });
        Self { url, status, received }
    }

    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Everything that came, answered or not.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What was taken with a success.
    pub fn taken(&self) -> Vec<Received> {
        self.received().into_iter().filter(|received| (200..300).contains(&received.answered)).collect()
    }
}

fn serve(stream: &TcpStream, status: &AtomicU16, kept: &Mutex<Vec<Received>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let target = lines[0].split(' ').nth(1).unwrap().to_owned();
        let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answered = status.load(Ordering::SeqCst);
        kept.lock().unwrap().push(Received { answered, target, headers, body });
        if answered == HANG {
            std::thread::park();
        }
        // A redirection leads back here, where it would be seen if it were followed.
        let answer = format!("HTTP/1.1 {answered} Answer\r\nlocation: /followed\r\ncontent-length: 0\r\n\r\n");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
