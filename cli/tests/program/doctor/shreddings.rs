//! A backup restored after a shredding, and incomplete receipts.

use std::fs;

use super::{Ward, on_both};

fn shred(ward: &Ward) {
    let plan = [
        "shred",
        "plan",
        "-c",
        "tenantId=t-1",
        "--every",
        "--out",
        "plan.json",
    ];
    ward.place.ok(&plan);
    ward.place.ok(&[
        "shred",
        "run",
        "plan.json",
        "--receipts",
        "receipts",
        "--because",
        "contract ended",
        "--yes",
    ]);
}

#[test]
fn a_backup_that_was_restored_after_a_shredding() {
    on_both(|ward| {
        ward.place.create("tenantId=t-1");
        ward.place.create("tenantId=t-2");
        ward.place.ok(&["keys", "rotate", "-c", "tenantId=t-1"]);
        ward.sql(
            "CREATE TABLE backup_keys AS SELECT * FROM encx.data_keys;
             CREATE TABLE backup_wraps AS SELECT * FROM encx.wrapped_keys",
            "CREATE TABLE backup_keys AS SELECT * FROM encx_data_keys;
             CREATE TABLE backup_wraps AS SELECT * FROM encx_wrapped_keys",
        );
        shred(&ward);
        let receipts = ["--receipts", "receipts"];
        ward.finds_with(&receipts, &[]).checked_all();
        let restore = |keys: &str, wraps: &str| {
            format!(
                "DELETE FROM {wraps}; DELETE FROM {keys}; INSERT INTO {keys} SELECT * FROM backup_keys;
                 INSERT INTO {wraps} SELECT * FROM backup_wraps"
            )
        };
        ward.sql(
            &restore("encx.data_keys", "encx.wrapped_keys"),
            &restore("encx_data_keys", "encx_wrapped_keys"),
        );
        ward.finds(&[]).checked_all();
        let report = ward.finds_with(&receipts, &[("shredding-undone", "error")]);
        report
            .says("encryption context tenantId=t-1\"")
            .says("2 of its versions")
            .says("encx shred replay --receipts receipts")
            .checked_all();
        ward.place.ok(&[
            "shred",
            "replay",
            "--receipts",
            "receipts",
            "--because",
            "restored",
            "--yes",
        ]);
        ward.finds_with(&receipts, &[]).checked_all();
    });
}

#[test]
fn receipts_that_are_not_whole() {
    on_both(|ward| {
        ward.place.create("tenantId=t-1");
        ward.place.create("tenantId=t-2");
        shred(&ward);
        let folder = ward.place.path("receipts");
        let is_receipt = |path: &std::path::PathBuf| path.extension().is_some_and(|of| of == "json");
        let mut files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(is_receipt).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("contract ended", "never happened")).unwrap();
        let receipts = ["--receipts", "receipts"];
        ward.finds_with(&receipts, &[("receipts-unreadable", "error")])
            .says("was changed");
        // A folder without receipts is not a finding.
        fs::create_dir(ward.place.path("none")).unwrap();
        let not_checked = ward.finds_with(&["--receipts", "none"], &[]).not_checked();
        assert!(
            matches!(not_checked.as_slice(), [one] if one.contains("has no receipts")),
            "{not_checked:?}"
        );
    });
}
