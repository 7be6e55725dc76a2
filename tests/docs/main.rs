//! The code in the documents. Each piece is in a file here, where it is compiled and run, and a test compares it with
//! the document. So documents show no scaffolding, and only code that works.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod adoption;
mod guide;
#[path = "key-lifecycle.rs"]
mod key_lifecycle;
mod passwords;
mod recipes;
mod search;
mod shown;
mod testing;

use std::path::{Path, PathBuf};

fn documents() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = std::fs::read_dir(docs).unwrap().map(|file| file.unwrap().path());
    let mut documents: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|kind| kind == "md"))
        .collect();
    documents.sort();
    documents
}

#[test]
fn all_code_is_tested() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docs");
    for document in documents() {
        let name = document.file_stem().unwrap().to_str().unwrap();
        // It needs PostgreSQL: tables/tests/derive/document.rs.
        let is_tested = name == "derive" || tests.join(name).with_extension("rs").exists();
        let text = std::fs::read_to_string(&document).unwrap();
        assert!(is_tested || !text.contains("```rust"), "{name}");
    }
}

#[test]
fn each_page_begins_with_what_its_reader_can_do() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let begin = text.split("\n\n").nth(1).unwrap();
        assert!(
            begin.starts_with("After this "),
            "{}: {begin}",
            document.display()
        );
    }
}

#[test]
fn the_index_lists_every_page() {
    let index = include_str!("../../docs/README.md");
    for document in documents() {
        let page = document.file_name().unwrap().to_str().unwrap();
        let is_listed = index.contains(&format!("]({page})")) || index.contains(&format!("]({page}#"));
        assert!(is_listed || page == "README.md", "{page}");
    }
}

#[test]
fn links_lead_somewhere() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    for document in documents().into_iter().chain([readme]) {
        let text = std::fs::read_to_string(&document).unwrap();
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap();
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            if file.starts_with("https:") {
                continue;
            }
            let target = document.parent().unwrap().join(file);
            let target = if file.is_empty() { &document } else { &target };
            let name = document.display();
            assert!(target.exists(), "{name}: {link}");
            if !place.is_empty() {
                let target = std::fs::read_to_string(target).unwrap();
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|heading| place_of(heading) == place),
                    "{name}: {link}"
                );
            }
        }
    }
}

/// GitHub's anchor of a heading.
fn place_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
