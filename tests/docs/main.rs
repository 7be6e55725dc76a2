//! The code that the documents show. Each piece stands in a file here, where it is compiled and run, and a test holds it
//! against the document: so readers see no scaffolding, and nothing that does not work.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod guide;
mod testing;

use std::path::Path;

/// Fails if a document shows Rust that its file here has not, line by line. Indentation does not count, nor do the
/// modules that keep the pieces apart.
#[track_caller]
fn assert_shown(document: &str, source: &str) {
    let source = source.replace("pub(super) ", "");
    let source: Vec<_> = source.lines().map(str::trim).collect();
    let mut lines = document.lines().enumerate();
    let mut pieces = 0;
    while let Some((number, line)) = lines.next() {
        if line != "```rust" {
            continue;
        }
        let piece = lines.by_ref().map(|(_, line)| line.trim());
        let piece: Vec<_> = piece.take_while(|line| *line != "```").collect();
        assert!(
            source.windows(piece.len()).any(|some| some == piece),
            "the piece after line {} is not in the file that tests it:\n{}",
            number + 1,
            piece.join("\n")
        );
        pieces += 1;
    }
    assert!(pieces > 0, "the document shows no code");
}

#[test]
fn links_lead_to_files() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for document in ["from-go.md", "guide.md", "testing.md"] {
        let text = std::fs::read_to_string(docs.join(document)).unwrap();
        let links = text.split("](").skip(1);
        let links = links.map(|rest| rest.split([')', '#']).next().unwrap());
        for link in links.filter(|link| !link.is_empty() && !link.starts_with("https:")) {
            assert!(docs.join(link).exists(), "{document}: {link}");
        }
    }
}
