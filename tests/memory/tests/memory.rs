//! Searches the memory of a process that has released its keys, and finds none.
//!
//! The process is this package's program, at the optimization level of the package's build; `scripts/check-backends` builds
//! it at two levels. It is stopped during the search, which covers everything it can write to: heap, stacks of all threads
//! and statics.
//!
//! Each run first searches while the keys are in use, and must find them: an empty result proves something only if the
//! search finds what is there.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod support;

use std::time::Duration;

use encx::suite::Backend;
use encx::{Clock, SystemClock};
use support::child::{Child, Moment};
use support::needles::Needles;
use support::scan::found;

/// Runs per case and cipher backend.
const RUNS: usize = 20;

#[test]
fn the_aead_leaves_nothing_when_dropped() {
    each_run(|backend| {
        let mut child = Child::start(backend, &["suite"]);
        child.until(Moment::Alive);
        let needles = Needles::of(&child);
        assert_there(&child, &needles, &["DEK", "Kx"]);
        child.until(Moment::Dropped);
        assert_gone(&child, &needles, &[]);
    });
}

#[test]
fn a_service_on_a_kms_in_memory_leaves_nothing_when_dropped() {
    service(&["memory", "drop"], None);
}

#[test]
fn a_service_on_a_kms_in_memory_leaves_nothing_after_ttl() {
    service(&["memory", "ttl"], None);
}

#[test]
fn a_service_on_a_kms_in_memory_leaves_nothing_after_shutdown() {
    service(&["memory", "shutdown"], None);
}

#[test]
fn a_service_on_a_kek_file_leaves_nothing_when_dropped() {
    service_on_a_file("drop");
}

#[test]
fn a_service_on_a_kek_file_leaves_nothing_after_ttl() {
    service_on_a_file("ttl");
}

#[test]
fn a_service_on_a_kek_file_leaves_nothing_after_shutdown() {
    service_on_a_file("shutdown");
}

fn service_on_a_file(end: &str) {
    let file = support::kek_file::KekFile::create();
    service(
        &["local", end, &file.path(), &file.masked_passphrase()],
        Some(&file),
    );
}

fn service(args: &[&str], file: Option<&support::kek_file::KekFile>) {
    each_run(|backend| {
        let mut child = Child::start(backend, args);
        child.until(Moment::Alive);
        let mut needles = Needles::of(&child);
        let mut alive = vec!["DEK", "Kx", "PRK"];
        if let Some(file) = file {
            needles.add_file(file, &child);
            alive.extend(["KEK", "file key"]);
        }
        assert_there(&child, &needles, &alive);
        if !args.contains(&"drop") {
            child.until(Moment::Expired);
            // The KMS is still open, and keeps the keys that it wraps with.
            assert_gone(
                &child,
                &needles,
                &["KEK", "KEK's Kx", "file key", "file key's Kx"],
            );
        }
        child.until(Moment::Closed);
        assert_gone(&child, &needles, &[]);
    });
}

fn each_run(run: impl Fn(Backend)) {
    for backend in Backend::COMPILED {
        for _ in 0..RUNS {
            run(*backend);
        }
    }
}

/// Asserts that some needle of each kind is found.
fn assert_there(child: &Child, needles: &Needles, kinds: &[&str]) {
    let given = needles.given_away(&found(child, needles));
    assert!(
        kinds.iter().all(|kind| given.contains(kind)),
        "found {given:?} of {kinds:?}"
    );
}

/// Waits until only these kinds are found. Background tasks, and threads that opened the KEK file, release their memory
/// shortly after the call that they worked for.
fn assert_gone(child: &Child, needles: &Needles, except: &[&str]) {
    let deadline = SystemClock::new().elapsed() + Duration::from_secs(10);
    loop {
        let mut given = needles.given_away(&found(child, needles));
        given.retain(|kind| !except.contains(kind));
        if given.is_empty() {
            return;
        }
        assert!(
            SystemClock::new().elapsed() < deadline,
            "left in memory with {:?}: {given:?}",
            child.backend
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
