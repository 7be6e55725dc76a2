//! The output of a rotation: its stages, and what keeps it from being done.

use anyhow::Result;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::{Output, printable, tell};

const STAGES: u32 = 6;

/// Prints stages, and collects reasons why the rotation is not done.
pub(super) struct Told {
    pub(super) output: Output,
    reasons: Vec<String>,
}

impl Told {
    pub(super) fn new(output: Output) -> Self {
        let reasons = Vec::new();
        Self { output, reasons }
    }

    /// Announces a stage.
    pub(super) fn stage(&self, number: u32, name: &str, text: &str) -> Result<()> {
        tell(&format!("stage {number} of {STAGES}: {text}"));
        self.event(&json!({ "event": "stage", "number": number, "of": STAGES, "stage": name }))
    }

    /// Writes an event if the output is JSON.
    pub(super) fn event(&self, event: &Value) -> Result<()> {
        match self.output.is_json() {
            true => self.output.text(&event.to_string()),
            false => Ok(()),
        }
    }

    /// Adds a reason why the rotation is not done.
    pub(super) fn not_done(&mut self, reason: String) {
        self.reasons.push(reason);
    }

    pub(super) fn is_done(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Reports the result of a dry run.
    pub(super) fn dry_run_result(&self) -> Result<Exit> {
        for reason in &self.reasons {
            tell(&format!("would not be done: {reason}"));
        }
        self.event(&json!({ "event": "result", "done": false, "dry_run": true, "reasons": self.reasons }))?;
        Ok(if self.is_done() { Exit::Done } else { Exit::Finding })
    }

    /// Reports the result.
    pub(super) fn result(&self) -> Result<Exit> {
        self.event(&json!({ "event": "result", "done": self.is_done(), "reasons": self.reasons }))?;
        if self.is_done() {
            if !self.output.is_json() {
                self.output
                    .text("done: every context was rotated, and no row of a declared column is under an old version")?;
            }
            return Ok(Exit::Done);
        }
        for reason in &self.reasons {
            let text = format!("not done: {reason}");
            match self.output.is_json() {
                true => tell(&text),
                false => self.output.text(&printable(&text))?,
            }
        }
        Ok(Exit::Finding)
    }
}
