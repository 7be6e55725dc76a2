//! Captures all `tracing` events, at every level and of every target.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// All events and spans of the process since it was installed, as text.
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<String>>);

impl Capture {
    /// Installs it as the subscriber of the whole process, once.
    pub(crate) fn install() -> Self {
        let capture = Self::default();
        let shared = Shared {
            text: capture.clone(),
            spans: AtomicU64::new(1),
        };
        tracing::subscriber::set_global_default(shared).unwrap();
        capture
    }

    /// Takes what was captured since the last call.
    pub(crate) fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn note(&self, of: &Metadata<'_>, record: impl FnOnce(&mut dyn Visit)) {
        let mut fields = Fields(String::new());
        record(&mut fields);
        let mut text = self.0.lock().unwrap();
        writeln!(text, "{} {} {}{}", of.level(), of.target(), of.name(), fields.0).unwrap();
    }
}

struct Shared {
    text: Capture,
    spans: AtomicU64,
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Shared {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.text.note(span.metadata(), |fields| span.record(fields));
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut fields = Fields(String::new());
        values.record(&mut fields);
        writeln!(self.text.0.lock().unwrap(), "recorded{}", fields.0).unwrap();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.text.note(event.metadata(), |fields| event.record(fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
