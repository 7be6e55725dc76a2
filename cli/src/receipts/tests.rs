//! Tests that changes to the files of a folder are found, and that the error names the file.

use std::fs;

use tempfile::TempDir;

use super::*;

fn receipt(tenant: &str) -> Receipt {
    Receipt {
        format: String::new(),
        number: 0,
        previous: None,
        replay_of: None,
        context: BTreeMap::from([("tenantId".to_owned(), tenant.to_owned())]),
        reason: "contract ended".to_owned(),
        by: Some("operator".to_owned()),
        shredded_at: exact_moment(Timestamp::from_micros(1_700_000_000_000_001)),
        versions: vec![Version {
            id: "0190163d-8694-739a-abb7-1bb3fa4d6a6f".to_owned(),
            usage: "data".to_owned(),
            version: 1,
            destroyed_at: exact_moment(Timestamp::from_micros(1_700_000_000_000_001)),
        }],
        processes: Processes {
            complete: true,
            serves_until: None,
            unknown: None,
        },
        keks: Vec::new(),
        rows: None,
        survives: Vec::new(),
    }
}

/// A folder with three receipts, and their names.
fn three() -> (TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut open = ReceiptFolder::open(folder.path()).unwrap();
    let files = ["t-1", "t-2", "t-3"].map(|tenant| {
        let path = open.add(receipt(tenant)).unwrap();
        path.file_name().unwrap().to_str().unwrap().to_owned()
    });
    (folder, files.to_vec())
}

fn refused(folder: &TempDir) -> ReceiptError {
    Receipts::read(folder.path()).unwrap_err()
}

#[test]
fn receipts_are_read_as_they_were_written_and_form_a_chain() {
    let (folder, files) = three();
    let read = Receipts::read(folder.path()).unwrap();
    let numbers: Vec<_> = read.list.iter().map(|receipt| receipt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(read.list[0].previous, None);
    for (before, after) in [(0, 1), (1, 2)] {
        let bytes = fs::read(folder.path().join(&files[before])).unwrap();
        assert_eq!(read.list[after].previous, Some(digest_of(&bytes)));
    }
    let last = fs::read(folder.path().join(&files[2])).unwrap();
    assert_eq!(read.digest(), Some(&*digest_of(&last)));
    assert_eq!(
        read.list[0].shredded_at(),
        Some(Timestamp::from_micros(1_700_000_000_000_001))
    );
    // The leftover temporary file of a killed process is ignored.
    fs::write(folder.path().join(".encx-abc.tmp"), "{").unwrap();
    let mut again = ReceiptFolder::open(folder.path()).unwrap();
    let fourth = again.add(receipt("t-4")).unwrap();
    assert!(fourth.to_str().unwrap().contains("0004-"));
    assert_eq!(Receipts::read(folder.path()).unwrap().list.len(), 4);
}

#[cfg(unix)]
#[test]
fn only_this_user_reads_them_and_one_process_writes_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, files) = three();
    let mode = fs::metadata(folder.path().join(&files[0]))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let _open = ReceiptFolder::open(folder.path()).unwrap();
    let second = ReceiptFolder::open(folder.path());
    assert!(matches!(second, Err(ReceiptError::Locked { .. })), "{second:?}");
}

#[test]
fn nothing_is_written_over() {
    let (folder, files) = three();
    let path = folder.path().join(&files[1]);
    let before = fs::read(&path).unwrap();
    write_whole(folder.path(), &path, b"other").unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_changed_byte_names_its_file_whichever_it_is() {
    for place in 0..3 {
        let (folder, files) = three();
        let path = folder.path().join(&files[place]);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("contract", "Contract")).unwrap();
        match refused(&folder) {
            ReceiptError::Changed { file } => assert_eq!(file, files[place]),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_change_that_renames_its_file_breaks_the_chain_at_the_next() {
    let (folder, files) = three();
    let path = folder.path().join(&files[1]);
    let text = fs::read_to_string(&path).unwrap().replace("contract", "Contract");
    fs::remove_file(&path).unwrap();
    fs::write(folder.path().join(name_of(2, &digest_of(text.as_bytes()))), text).unwrap();
    match refused(&folder) {
        ReceiptError::Unchained { file } => assert_eq!(file, files[2]),
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_one_is_named_by_its_number() {
    for place in 0..2 {
        let (folder, files) = three();
        fs::remove_file(folder.path().join(&files[place])).unwrap();
        match refused(&folder) {
            ReceiptError::Missing { number, file } => {
                assert_eq!((number as usize, &file), (place + 1, &files[place + 1]));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn another_order_is_noticed() {
    let (folder, files) = three();
    let digest = |file: &str| file[5..13].to_owned();
    let (second, third) = (name_of(3, &digest(&files[1])), name_of(2, &digest(&files[2])));
    fs::rename(folder.path().join(&files[1]), folder.path().join(second)).unwrap();
    fs::rename(folder.path().join(&files[2]), folder.path().join(&third)).unwrap();
    match refused(&folder) {
        ReceiptError::Unchained { file } => assert_eq!(file, third),
        other => panic!("{other}"),
    }
}

#[test]
fn a_foreign_file_and_a_second_of_one_number_are_named() {
    for foreign in [
        "notes.txt",
        "4-00000000.json",
        "0004-0000000G.json",
        "0004-00000000.json.bak",
    ] {
        let (folder, _) = three();
        fs::write(folder.path().join(foreign), "{}").unwrap();
        match refused(&folder) {
            ReceiptError::Foreign { file } => assert_eq!(file, foreign),
            other => panic!("{other}"),
        }
    }
    let (folder, files) = three();
    let other = name_of(2, "ffffffff");
    fs::copy(folder.path().join(&files[1]), folder.path().join(&other)).unwrap();
    match refused(&folder) {
        ReceiptError::Unchained { file } | ReceiptError::Changed { file } => assert_eq!(file, other),
        other => panic!("{other}"),
    }
}

#[test]
fn another_format_and_what_is_no_json_are_refused() {
    for text in ["{\"format\":\"encx/shred-receipt/2\"}", "not json", "{}"] {
        let folder = tempfile::tempdir().unwrap();
        let file = name_of(1, &digest_of(text.as_bytes()));
        fs::write(folder.path().join(&file), text).unwrap();
        match refused(&folder) {
            ReceiptError::Format { file: named, .. } => assert_eq!(named, file),
            other => panic!("{other}"),
        }
    }
}
