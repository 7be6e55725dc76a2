//! Compares a document with the file that contains its code. Tests of other packages use it, too.

/// Fails if a document shows Rust code that the source does not contain, line by line. Indentation is ignored, and so
/// are the modules that separate the pieces.
#[track_caller]
pub(crate) fn assert_shown(document: &str, source: &str) {
    let source = source.replace("pub(super) ", "");
    let source: Vec<_> = source.lines().map(str::trim).collect();
    let mut lines = document.lines().enumerate();
    let mut pieces = 0;
    while let Some((number, line)) = lines.next() {
        // Including markers such as `ignore`.
        if !line.trim().starts_with("```rust") {
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
