//! The process that is searched.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use encx::suite::Backend;

use super::{MASK, from_hex};

/// A running process, and what it has reported.
pub(crate) struct Child {
    /// Its cipher backend.
    pub(crate) backend: Backend,
    process: std::process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its data keys.
    pub(crate) keys: Vec<[u8; 32]>,
    /// First halves of the nonces of its messages.
    pub(crate) messages: Vec<[u8; 12]>,
    /// Wrapped data keys.
    pub(crate) wraps: Vec<Vec<u8>>,
    waits: bool,
}

/// Where it stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Moment {
    Alive,
    Closed,
    Dropped,
    Expired,
}

impl Child {
    /// Starts it with a cipher backend.
    pub(crate) fn start(backend: Backend, args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_encx-test-memory"))
            .arg(format!("{backend:?}"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            backend,
            stdin: process.stdin.take().unwrap(),
            stdout: BufReader::new(process.stdout.take().unwrap()),
            process,
            keys: Vec::new(),
            messages: Vec::new(),
            wraps: Vec::new(),
            waits: false,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Lets it continue up to a moment.
    pub(crate) fn until(&mut self, moment: Moment) {
        if self.waits {
            self.stdin.write_all(b"\n").unwrap();
        }
        loop {
            let mut line = String::new();
            assert!(
                self.stdout.read_line(&mut line).unwrap() > 0,
                "the process has ended"
            );
            let (kind, rest) = line.trim_end().split_once(' ').unwrap();
            match kind {
                "dek" => {
                    let mut key: [u8; 32] = from_hex(rest).try_into().unwrap();
                    key.iter_mut().for_each(|byte| *byte ^= MASK);
                    self.keys.push(key);
                }
                // Version, suite and key id precede the nonce.
                "message" => self.messages.push(from_hex(rest)[18..30].try_into().unwrap()),
                "wrap" => self.wraps.push(from_hex(rest)),
                "scan" => {
                    assert_eq!(rest, format!("{moment:?}").to_lowercase());
                    self.waits = true;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
        self.keys.sort_unstable();
        self.keys.dedup();
        self.messages.sort_unstable();
        self.messages.dedup();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
