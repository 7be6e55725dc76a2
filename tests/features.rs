//! The tables of features in README.md and in the documentation match Cargo.toml.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::BTreeSet;

/// The names in the section `[features]`, except `default`.
fn of_manifest(manifest: &str) -> BTreeSet<&str> {
    let (_, section) = manifest.split_once("\n[features]\n").unwrap();
    let (section, _) = section.split_once("\n[").unwrap();
    let names = section.lines().filter_map(|line| Some(line.split_once(" = ")?.0));
    names
        .filter(|name| !name.starts_with('#') && *name != "default")
        .collect()
}

/// The names in backticks in the first column of the table with this header.
fn of_table<'a>(text: &'a str, head: &str) -> BTreeSet<&'a str> {
    let mut lines = text.lines().map(|line| line.trim_start_matches("//! "));
    assert!(
        lines.any(|line| line.starts_with(head)),
        "there is no table {head:?}"
    );
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let first_columns = rows.filter_map(|row| row.split('|').nth(1));
    first_columns
        .flat_map(|column| column.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn the_tables_of_features_list_those_of_the_manifest() {
    let features = of_manifest(include_str!("../Cargo.toml"));
    assert!(features.contains("derive"));
    assert_eq!(
        of_table(include_str!("../README.md"), "| feature of `encx` |"),
        features
    );
    assert_eq!(of_table(include_str!("../src/lib.rs"), "| feature |"), features);
}

/// The READMEs of the other packages name their features.
#[test]
fn readmes_name_the_features_of_their_packages() {
    for (manifest, readme) in [
        (
            include_str!("../config/Cargo.toml"),
            include_str!("../config/README.md"),
        ),
        (
            include_str!("../core/Cargo.toml"),
            include_str!("../core/README.md"),
        ),
        (
            include_str!("../suite/Cargo.toml"),
            include_str!("../suite/README.md"),
        ),
        (
            include_str!("../providers/aws/Cargo.toml"),
            include_str!("../providers/aws/README.md"),
        ),
        (
            include_str!("../providers/sqlx/Cargo.toml"),
            include_str!("../providers/sqlx/README.md"),
        ),
        (
            include_str!("../tables/Cargo.toml"),
            include_str!("../tables/README.md"),
        ),
        (
            include_str!("../testkit/Cargo.toml"),
            include_str!("../testkit/README.md"),
        ),
    ] {
        for feature in of_manifest(manifest) {
            assert!(
                readme.contains(&format!("`{feature}`")),
                "{feature} is not named in:\n{readme}"
            );
        }
    }
}
