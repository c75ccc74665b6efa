//! A real Chromium without a window, spoken to over its own protocol through two named pipes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// Only what is on this machine is asked for, and nothing by the browser itself.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
    "about:blank",
];

pub struct Browser {
    child: Child,
    input: File,
    output: BufReader<File>,
    session: String,
    number: u64,
    /// What it told of by itself.
    pub events: Vec<Value>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser has processes of its own, in one group with it.
        let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Where `tests/run` unpacks it.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/chromium")
}

impl Browser {
    /// `directory` is for its profile and pipes.
    pub fn start(directory: &Path) -> Self {
        let program = folder().join("usr/lib/chromium/chromium-headless-shell");
        assert!(program.exists(), "`{}` does not exist: `tests/run` gets it", program.display());
        let pipes = ["to-browser", "from-browser"].map(|name| directory.join(name));
        assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
        let libraries = folder().join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        // The shell gives the browser its pipes as the descriptors that it wants them at.
        let script = "to=$1 from=$2 && shift 2 && exec \"$@\" 3<\"$to\" 4>\"$from\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(&pipes).arg(&program).args(FLAGS).env("HOME", directory);
        command.arg(format!("--user-data-dir={}", directory.join("profile").display()));
        command.env("LD_LIBRARY_PATH", format!("{0}:{0}/pulseaudio", libraries.display()));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(directory.join("browser.log")).unwrap());
        let child = command.spawn().unwrap();
        let input = File::options().write(true).open(&pipes[0]).unwrap();
        let output = BufReader::new(File::open(&pipes[1]).unwrap());
        let mut browser = Self { child, input, output, session: String::new(), number: 0, events: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Network", "Log", "Runtime"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// One command, and its answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let message = self.next();
            if message["id"] == self.number {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.output.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser ended; see browser.log");
        serde_json::from_slice(&bytes).unwrap()
    }

    fn wait_for(&mut self, event: &str) {
        loop {
            let message = self.next();
            let is_it = message["method"] == event;
            self.events.push(message);
            if is_it {
                return;
            }
        }
    }

    /// Loads an address to its end.
    pub fn open(&mut self, address: &str) {
        let answer = self.call("Page.navigate", json!({ "url": address }));
        assert!(answer.get("errorText").is_none(), "{address}: {answer}");
        self.wait_for("Page.loadEventFired");
    }

    /// As wide and high as a screen is, by day or by night.
    pub fn look_as(&mut self, width: u32, dark: bool) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What an expression says, asked by the debugger: the page itself runs no script.
    pub fn ask(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Presses a key; where that loads a page, `loads` waits for it.
    pub fn press(&mut self, key: &str, loads: bool) {
        let code = if key == "Tab" { 9 } else { 13 };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
        if loads {
            let loaded = |events: &[Value]| events.iter().any(|event| event["method"] == "Page.loadEventFired");
            if !loaded(&self.events) {
                self.wait_for("Page.loadEventFired");
            }
        }
    }

    /// The whole page as a PNG.
    pub fn screenshot(&mut self, path: &Path) {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, from_base64(answer["data"].as_str().unwrap())).unwrap();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| alphabet.iter().position(|known| *known == byte));
    let digits: Vec<u32> = digits.map(|digit| u32::try_from(digit).unwrap()).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().fold(0, |bits, digit| (bits << 6) | digit) << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    });
    bytes.collect()
}
