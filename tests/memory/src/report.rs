//! The lines that the test reads from standard output.
#![allow(clippy::print_stdout, reason = "the test reads it")]

use std::io::{BufRead, stdin};

use encx::kms::DataKey;

/// Prints a line for a moment, and waits for an answer.
pub(crate) fn scan(moment: &str) {
    println!("scan {moment}");
    let mut line = String::new();
    assert!(
        stdin().lock().read_line(&mut line).unwrap() > 0,
        "the test has ended"
    );
}

pub(crate) fn report_bytes(kind: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{kind} {hex}");
}

/// Secrets that must not be in this process's memory are masked on its pipes.
const MASK: u8 = 0x5a;

pub(crate) fn report_key(key: &DataKey) {
    let mut masked = [0; 32];
    for (masked, byte) in masked.iter_mut().zip(key.expose()) {
        *masked = byte ^ MASK;
    }
    report_bytes("dek", &masked);
}

/// Decodes masked hex, without reallocating.
pub(crate) fn unmask(hex: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    for at in (0..hex.len()).step_by(2) {
        bytes.push(u8::from_str_radix(&hex[at..at + 2], 16).unwrap() ^ MASK);
    }
    bytes
}
