//! The code that the documents show. Each piece stands in a file here, where it is compiled and run, and a test holds it
//! against the document: so readers see no scaffolding, and nothing that does not work.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod guide;
mod shown;
mod testing;

use std::path::Path;

#[test]
fn links_lead_to_files() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for document in ["derive.md", "from-go.md", "guide.md", "testing.md"] {
        let text = std::fs::read_to_string(docs.join(document)).unwrap();
        let links = text.split("](").skip(1);
        let links = links.map(|rest| rest.split([')', '#']).next().unwrap());
        for link in links.filter(|link| !link.is_empty() && !link.starts_with("https:")) {
            assert!(docs.join(link).exists(), "{document}: {link}");
        }
    }
}
