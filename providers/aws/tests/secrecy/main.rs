//! No error and no `tracing` event shows a data key or a plaintext, for any failure.
//!
//! All providers are tested in this package, because this provider has leaked: its SDK's errors show requests.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[path = "../common/mod.rs"]
mod common;
mod endpoints;
mod providers;

use std::error::Error;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::common::capture::Capture;

/// A data key, in ASCII so that the raw bytes are found too.
const KEY: [u8; 32] = *b"a data key, of thirty-two bytes.";
const PLAINTEXT: &str = "Ada Lovelace was treated for melancholy";

/// Shared by all tests: each searches everything since the last search.
static EVENTS: LazyLock<Capture> = LazyLock::new(Capture::install);

/// Whether events of the AWS SDK at level TRACE were among them.
static WAS_SDK_SEEN: AtomicBool = AtomicBool::new(false);

/// Collects the errors of one failure, and searches them and all events.
struct Search {
    text: String,
    errors: usize,
}

impl Search {
    fn begin() -> Self {
        LazyLock::force(&EVENTS);
        let text = String::new();
        Self { text, errors: 0 }
    }

    /// Adds an error with all its sources, in every form that a log may show.
    fn error(&mut self, error: &(dyn Error + 'static)) {
        self.errors += 1;
        let mut next = Some(error);
        while let Some(error) = next {
            self.text
                .push_str(&format!("{error}\n{error:?}\n{error:#?}\n{error:#}\n"));
            next = error.source();
        }
    }

    /// Adds the error of a call that must fail.
    #[track_caller]
    fn failed<T, E: Error + 'static>(&mut self, what: &str, outcome: Result<T, E>) {
        match outcome {
            Ok(_) => panic!("{what} succeeded"),
            Err(error) => self.error(&error),
        }
    }

    /// Searches it.
    #[track_caller]
    fn end(mut self, what: &str) {
        assert!(self.errors > 0, "{what}: nothing failed");
        self.text.extend(
            EVENTS
                .take()
                .lines()
                .filter(|event| !is_refusal_by_sdk(event))
                .flat_map(|line| [line, "\n"]),
        );
        if self
            .text
            .contains("TRACE aws_smithy_runtime::client::orchestrator")
        {
            WAS_SDK_SEEN.store(true, Ordering::Relaxed);
        }
        let plain = without_spaces(&self.text);
        for secret in [KEY.as_slice(), PLAINTEXT.as_bytes()] {
            if let Some(found) = found(&plain, secret) {
                panic!("{what}: a secret is shown, as {found}\n{}", self.text);
            }
        }
    }
}

/// The one exception: at level TRACE the SDK logs refusals by AWS KMS. Only a KMS that includes a key in a refusal
/// could leak one there.
fn is_refusal_by_sdk(event: &str) -> bool {
    event.starts_with("TRACE aws_smithy_runtime::client::orchestrator ")
        && event.contains(" output_or_error=Err(")
}

fn without_spaces(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

/// Searches text without white space for a part of a secret, in the forms in which bytes are printed.
fn found(plain: &str, secret: &[u8]) -> Option<String> {
    // Finds any twenty consecutive characters of it.
    const PART: usize = 16;
    const STEP: usize = 4;
    let parts = forms(secret).into_iter().flat_map(|form| {
        let count = form.len() - PART;
        (0..=count)
            .step_by(STEP)
            .map(move |at| form[at..at + PART].to_owned())
    });
    parts.into_iter().find(|part| plain.contains(part.as_str()))
}

/// Formats bytes in all printed forms, without white space.
fn forms(secret: &[u8]) -> Vec<String> {
    let raw: String = String::from_utf8_lossy(secret).split_whitespace().collect();
    let hex = |upper: bool| -> String {
        let digits = secret.iter().map(|byte| match upper {
            true => format!("{byte:02X}"),
            false => format!("{byte:02x}"),
        });
        digits.collect()
    };
    let list: Vec<_> = secret.iter().map(u8::to_string).collect();
    let mut forms = vec![raw, hex(false), hex(true), list.join(",")];
    for engine in [&STANDARD, &URL_SAFE] {
        for before in 0..3 {
            let shifted = [vec![0; before], secret.to_vec()].concat();
            // Without the characters that neighbouring bytes affect.
            let encoded = engine.encode(shifted);
            forms.push(encoded[4..encoded.len() - 4].to_owned());
        }
    }
    forms
}

#[test]
fn the_search_finds_every_form() {
    for secret in [KEY.as_slice(), PLAINTEXT.as_bytes()] {
        for form in forms(secret) {
            assert!(found(&format!("x{form}y"), secret).is_some(), "{form}");
        }
        assert!(found(&without_spaces(&format!("{secret:?}")), secret).is_some());
        assert!(found(&without_spaces(&format!("{secret:#?}")), secret).is_some());
        assert!(
            found(
                &without_spaces(&format!("{:?}", String::from_utf8_lossy(secret))),
                secret
            )
            .is_some()
        );
        assert!(found("nothingofit", secret).is_none());
    }
}
