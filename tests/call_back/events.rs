//! A subscriber and a clock that call back into encx, from every event.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::{SERVICES, block_on, call_back, scenes, within_deadline};

/// Where an event is emitted: file and line.
type Site = (String, u32);

static SEEN: Mutex<BTreeSet<Site>> = Mutex::new(BTreeSet::new());

struct Calling;

impl Subscriber for Calling {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("encx")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let file = metadata.file().unwrap().replace('\\', "/");
        SEEN.lock().unwrap().insert((file, metadata.line().unwrap()));
        call_back();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Files whose events no scene covers, and why.
const EXCEPT: [(&str, &str); 1] = [(
    "src/clock/coarse.rs",
    "only where the system starts no thread; nothing is held there, and the file has no lock",
)];

#[test]
fn a_subscriber_and_a_clock_may_call_back_from_every_event() {
    within_deadline(|| {
        tracing::subscriber::set_global_default(Calling).unwrap();
        block_on(scenes::all());
        SERVICES.lock().unwrap().clear();
    });
    let seen = SEEN.lock().unwrap().clone();
    let mut expected = BTreeSet::new();
    collect_sites(Path::new("core/src"), &mut expected);
    collect_sites(Path::new("src"), &mut expected);
    assert!(expected.len() > 30, "{expected:?}");
    let is_excepted = |site: &Site| EXCEPT.iter().any(|(file, _)| *file == site.0);
    let missing: Vec<_> = expected
        .difference(&seen)
        .filter(|site| !is_excepted(site))
        .collect();
    assert!(
        missing.is_empty(),
        "events without a scene, so call-backs from them are untested: {missing:?}"
    );
}

/// Finds every event in the sources.
fn collect_sites(folder: &Path, sites: &mut BTreeSet<Site>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_sites(&path, sites);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let emits = |line: &str| {
                let levels = ["trace", "debug", "info", "warn", "error", "event"];
                levels
                    .iter()
                    .any(|level| line.contains(&format!("tracing::{level}!(")))
            };
            let lines = (1..).zip(text.lines()).filter(|(_, line)| emits(line));
            let file = path.to_str().unwrap().replace('\\', "/");
            sites.extend(lines.map(|(line, _)| (file.clone(), line)));
        }
    }
}
