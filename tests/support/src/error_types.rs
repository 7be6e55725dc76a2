//! The public error types in a package's sources, so that no list of them is maintained only by hand.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

/// Checks that `samples` and `elsewhere` contain every public error type in a package's sources. Checks that each one's
/// `Debug` is its text, followed by the causes that the text omits, one per line.
pub fn check(sources: &[&str], samples: &[(&'static str, Box<dyn Error>)], elsewhere: &[&str]) {
    let named = samples
        .iter()
        .map(|(name, _)| *name)
        .chain(elsewhere.iter().copied());
    let named: BTreeSet<_> = named.map(short).collect();
    assert_eq!(named, error_types(sources), "left: samples, right: the sources");
    for (name, error) in samples {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains("{ "), "{name}: {text}");
        for shown in [format!("{error:?}"), format!("{error:#?}")] {
            let mut lines = shown
                .strip_prefix(&text)
                .unwrap_or_else(|| panic!("{name}: {shown}"))
                .lines();
            assert!(lines.next().unwrap_or_default().is_empty(), "{name}: {shown}");
            assert!(
                lines.all(|line| line.starts_with("caused by: ")),
                "{name}: {shown}"
            );
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            for cause in causes {
                let cause = cause.to_string();
                let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
                let plain = shown.split_whitespace().collect::<Vec<_>>().join(" ");
                assert_eq!(
                    plain.matches(&cause).count(),
                    1,
                    "{name} names {cause:?} once: {shown}"
                );
            }
        }
    }
}

fn short(name: &str) -> String {
    name.rsplit("::").next().unwrap().to_owned()
}

/// Finds types that derive `thiserror::Error`, or implement `Error` by hand.
fn error_types(folders: &[&str]) -> BTreeSet<String> {
    let (mut public, mut errors) = (BTreeSet::new(), BTreeSet::new());
    let mut folders: Vec<_> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read(&fs::read_to_string(path).unwrap(), &mut public, &mut errors);
            }
        }
    }
    errors.intersection(&public).cloned().collect()
}

fn read(source: &str, public: &mut BTreeSet<String>, errors: &mut BTreeSet<String>) {
    let mut derived = false;
    for line in source.lines() {
        derived |= line.starts_with("#[derive(") && line.contains("Error");
        if let Some((_, implementor)) = line.split_once("Error for ").filter(|_| line.starts_with("impl")) {
            errors.insert(word(implementor));
        }
        let item = line.strip_prefix("pub ").unwrap_or(line);
        let Some(name) = item
            .strip_prefix("enum ")
            .or_else(|| item.strip_prefix("struct "))
        else {
            continue;
        };
        if item != line {
            public.insert(word(name));
        }
        if std::mem::take(&mut derived) {
            errors.insert(word(name));
        }
    }
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}
