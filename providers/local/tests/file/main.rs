//! A KEK file: its protection, its content, and how it is refused.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use encx::kms::{DataKey, KekId, KeyManagementService, KmsErrorKind};
use encx_local::{Argon2Params, LocalKms, LocalKmsError, Protection};
use encx_testkit::block_on;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

#[path = "../common/mod.rs"]
mod common;
mod description;

use common::{context, insecure};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.encx");
    (folder, path)
}

fn name(name: &str) -> KekId {
    KekId::new(name).unwrap()
}

/// The cheapest allowed: these tests are not about guessing.
fn passphrase(passphrase: &str) -> Protection {
    Protection::passphrase_with(passphrase, Argon2Params::new(128, 1, 1).unwrap())
}

fn key(byte: u8) -> Protection {
    Protection::key(DataKey::copy_from(&[byte; 32]).unwrap())
}

fn open(path: &Path, protection: Protection) -> Result<LocalKms, LocalKmsError> {
    block_on(LocalKms::open(path, protection))
}

fn create(path: &Path, protection: Protection) -> LocalKms {
    block_on(LocalKms::create(path, protection)).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes a file as an attacker who knows the format would: with a valid checksum.
fn tamper(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(bytes.len() - 32);
    change(&mut bytes);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_file_is_its_owners_alone_from_the_first_byte() {
    let (folder, path) = folder();
    let kms = create(&path, insecure());
    block_on(kms.create_kek()).unwrap();
    let mut found: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    assert_eq!(
        found,
        [path.clone(), path.with_extension("encx.lock")],
        "a temporary file stayed"
    );
    assert!(found.iter().all(|path| mode(path) == 0o600));
}

#[test]
fn a_file_that_others_have_any_permission_on_is_refused() {
    let (_folder, path) = folder();
    let kms = create(&path, insecure());
    for mode in [0o644, 0o640, 0o620, 0o610, 0o604, 0o602, 0o601] {
        chmod(&path, mode);
        let found = open(&path, insecure()).unwrap_err();
        assert!(matches!(found, LocalKmsError::Permissions { mode: m, .. } if m == mode));
        let changed = block_on(kms.create_kek()).unwrap_err();
        assert!(matches!(changed, LocalKmsError::Permissions { .. }));
        let used = block_on(kms.describe_kek(kms.default_kek().unwrap())).unwrap_err();
        assert_eq!(used.kind(), KmsErrorKind::Configuration);
    }
    for mode in [0o600, 0o400] {
        chmod(&path, mode);
        open(&path, insecure()).unwrap();
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let (folder, path) = folder();
    create(&path, insecure());
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    for path in [&link, folder.path()] {
        assert!(matches!(
            open(path, insecure()),
            Err(LocalKmsError::NotAFile { .. })
        ));
    }
    let dangling = folder.path().join("dangling");
    symlink(folder.path().join("nothing"), &dangling).unwrap();
    let result = block_on(LocalKms::open_or_create(&dangling, insecure()));
    assert!(matches!(result, Err(LocalKmsError::NotAFile { .. })));
    // Sparse, and far larger than memory: it must be refused before anything is allocated.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 43)
        .unwrap();
    assert!(matches!(
        open(&path, insecure()),
        Err(LocalKmsError::TooLarge { .. })
    ));
    fs::write(&path, vec![0; (16 << 20) + 1]).unwrap();
    assert!(matches!(
        open(&path, insecure()),
        Err(LocalKmsError::TooLarge { .. })
    ));
}

#[test]
fn a_file_is_created_once_and_opened_where_it_is() {
    let (_folder, path) = folder();
    let missing = open(&path, insecure()).unwrap_err();
    assert!(matches!(missing, LocalKmsError::Missing { .. }));
    assert!(
        !path.with_extension("encx.lock").exists(),
        "opening wrote something"
    );
    let kms = create(&path, insecure());
    let again = block_on(LocalKms::create(&path, insecure()));
    assert!(matches!(again, Err(LocalKmsError::Exists { .. })));
    let opened = block_on(LocalKms::open_or_create(&path, insecure())).unwrap();
    assert_eq!(opened.default_kek(), kms.default_kek());
}

#[test]
fn what_a_dead_writer_left_blocks_no_other() {
    let (folder, path) = folder();
    let kms = create(&path, insecure());
    let (temporary, victim) = (path.with_extension("encx.tmp"), folder.path().join("victim"));
    fs::write(&temporary, "half a file").unwrap();
    block_on(kms.create_kek()).unwrap();
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, &temporary).unwrap();
    block_on(kms.create_kek()).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!((mode(&path), temporary.exists()), (0o600, false));
    assert_eq!(block_on(kms.list_keks()).unwrap().len(), 3);
}

#[test]
fn racing_creators_agree_on_one_file() {
    let (_folder, path) = folder();
    block_on(async {
        let open = |_| tokio::spawn(LocalKms::open_or_create(path.clone(), passphrase("p")));
        let tasks: Vec<_> = (0..8).map(open).collect();
        let mut defaults = Vec::new();
        for task in tasks {
            defaults.push(task.await.unwrap().unwrap().default_kek().cloned().unwrap());
        }
        assert!(defaults.iter().all(|default| *default == defaults[0]));
    });
}

#[test]
fn four_failures_are_four_errors() {
    let (_folder, path) = folder();
    let kms = create(&path, passphrase("right"));
    let kek = kms.default_kek().unwrap();
    let wrong = open(&path, passphrase("wrong")).unwrap_err();
    assert!(matches!(wrong, LocalKmsError::WrongPassphrase { .. }), "{wrong}");
    let unknown = block_on(kms.generate_data_key(&name("alias/none"), &context())).unwrap_err();
    assert_eq!(unknown.kind(), KmsErrorKind::NotFound);
    block_on(kms.disable_kek(kek)).unwrap();
    let disabled = block_on(kms.generate_data_key(kek, &context())).unwrap_err();
    assert_eq!(disabled.kind(), KmsErrorKind::KeyState);
    let bytes = fs::read(&path).unwrap();
    for damaged in [&bytes[..bytes.len() - 1], &bytes[..40], b"", b"not a KEK file"] {
        fs::write(&path, damaged).unwrap();
        let corrupt = open(&path, passphrase("right")).unwrap_err();
        assert!(matches!(corrupt, LocalKmsError::Corrupt { .. }), "{corrupt}");
    }
    let in_use = block_on(kms.describe_kek(kek)).unwrap_err();
    assert_eq!(in_use.kind(), KmsErrorKind::Configuration);
    let source = std::error::Error::source(&in_use).unwrap();
    assert!(matches!(
        source.downcast_ref(),
        Some(LocalKmsError::Corrupt { .. })
    ));
}

/// Every byte of the file, opened with the right key: always the expected error, never success.
///
/// (The unit tests flip every bit.)
#[test]
fn every_changed_byte_on_disk_is_corruption() {
    for protection in [|| key(1), || insecure()] {
        let (_folder, path) = folder();
        create(&path, protection());
        let bytes = fs::read(&path).unwrap();
        block_on(async {
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                fs::write(&path, changed).unwrap();
                let error = LocalKms::open(&path, protection()).await.unwrap_err();
                assert!(
                    matches!(error, LocalKmsError::Corrupt { .. }),
                    "byte {at}: {error}"
                );
            }
        });
    }
}

#[test]
fn a_forged_file_fails_by_its_commitment_or_its_tag() {
    let (_folder, path) = folder();
    create(&path, passphrase("p"));
    let bytes = fs::read(&path).unwrap();
    let restore = || fs::write(&path, &bytes).unwrap();
    // The header ends at 38, then come 4 bytes of length; the commitment is 64 bytes from the end.
    let forge = |change: fn(&mut Vec<u8>)| {
        restore();
        tamper(&path, change);
        open(&path, passphrase("p")).unwrap_err()
    };
    let salt = forge(|bytes| bytes[30] ^= 1);
    assert!(matches!(salt, LocalKmsError::WrongPassphrase { .. }), "{salt}");
    let passes = forge(|bytes| bytes[17] = 2);
    assert!(
        matches!(passes, LocalKmsError::WrongPassphrase { .. }),
        "{passes}"
    );
    let nonce = forge(|bytes| bytes[42] ^= 1);
    assert!(matches!(nonce, LocalKmsError::WrongPassphrase { .. }), "{nonce}");
    let body = forge(|bytes| bytes[42 + 24] ^= 1);
    assert!(matches!(body, LocalKmsError::Corrupt { .. }), "{body}");
    let memory = forge(|bytes| bytes[10..14].copy_from_slice(&u32::MAX.to_be_bytes()));
    assert!(matches!(memory, LocalKmsError::Corrupt { .. }), "{memory}");
    let version = forge(|bytes| bytes[8] = 2);
    assert!(
        matches!(version, LocalKmsError::UnsupportedVersion { found: 2, .. }),
        "{version}"
    );
    let short = forge(|bytes| {
        bytes.truncate(38);
        bytes.extend_from_slice(&[0; 4]);
    });
    assert!(matches!(short, LocalKmsError::Corrupt { .. }), "{short}");
    restore();
    open(&path, passphrase("p")).unwrap();
}

/// The header is AAD: a key that opens the body does not open it under another header.
#[test]
fn a_header_that_was_exchanged_is_refused() {
    let (_folder, path) = folder();
    create(&path, key(4));
    tamper(&path, |bytes| {
        // Now it claims protection by permissions alone, and contains the right key.
        bytes.splice(9..26, [&[3][..], &[4; 32]].concat());
    });
    assert!(matches!(
        open(&path, insecure()),
        Err(LocalKmsError::Corrupt { .. })
    ));
}

/// The file's id is part of the header, so the body is bound to its file.
#[test]
fn a_body_under_another_files_id_is_refused() {
    let (folder, path) = folder();
    let other = folder.path().join("other");
    create(&path, key(4));
    create(&other, key(4));
    let theirs = fs::read(&other).unwrap()[10..26].to_vec();
    let mine = fs::read(&path).unwrap()[10..26].to_vec();
    for (id, opens) in [(&theirs, false), (&vec![0; 16], false), (&mine, true)] {
        tamper(&path, |bytes| bytes[10..26].copy_from_slice(id));
        match open(&path, key(4)) {
            Ok(_) => assert!(opens),
            Err(error) => assert!(
                !opens && matches!(error, LocalKmsError::Corrupt { .. }),
                "{error}"
            ),
        }
    }
}

#[test]
fn two_files_under_one_secret_have_different_headers() {
    for protection in [|| passphrase("p"), || key(1), || insecure()] {
        let (folder, path) = folder();
        let other = folder.path().join("other");
        create(&path, protection());
        create(&other, protection());
        // The random part after the protection's byte in the shortest header, and after Argon2's parameters.
        let random = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            let at = if bytes[9] == 1 { 22 } else { 10 };
            bytes[at..at + 16].to_vec()
        };
        assert_ne!(random(&path), random(&other));
        assert!(
            [random(&path), random(&other)]
                .iter()
                .all(|bytes| *bytes != [0; 16])
        );
    }
}

#[test]
fn a_file_opens_only_in_the_way_that_protects_it() {
    let protections = [|| passphrase("p"), || key(1), || insecure()];
    for (made, protection) in protections.iter().enumerate() {
        let (_folder, path) = folder();
        create(&path, protection());
        for (given, protection) in protections.iter().enumerate() {
            match open(&path, protection()) {
                Ok(_) => assert_eq!(made, given),
                Err(error) => assert!(matches!(error, LocalKmsError::Protection { .. }), "{error}"),
            }
        }
    }
    let (_folder, path) = folder();
    create(&path, key(1));
    assert!(matches!(open(&path, key(2)), Err(LocalKmsError::WrongKey { .. })));
}

/// Slow: uses the default parameters.
#[test]
fn a_passphrase_protects_with_the_default_parameters() {
    let (_folder, path) = folder();
    create(&path, Protection::passphrase("correct horse"));
    open(&path, Protection::passphrase("correct horse")).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[..22], *b"encx-kek\x01\x01\0\x01\0\0\0\0\0\x03\0\0\0\x04");
}

#[test]
fn a_passphrase_is_salted_and_not_empty() {
    let (folder, path) = folder();
    let other = folder.path().join("other");
    create(&path, passphrase("correct horse"));
    create(&other, passphrase("correct horse"));
    let salt = |path: &Path| fs::read(path).unwrap()[22..38].to_vec();
    assert_ne!(salt(&path), salt(&other));
    let empty = block_on(LocalKms::create(folder.path().join("third"), passphrase("")));
    assert!(matches!(empty, Err(LocalKmsError::Key { .. })));
}

#[test]
fn a_key_file_is_text_of_32_bytes_and_its_owners_alone() {
    let (folder, path) = folder();
    create(&path, key(0xa5));
    let key_file = folder.path().join("key");
    let put = |text: &str| {
        fs::write(&key_file, text).unwrap();
        chmod(&key_file, 0o600);
        open(&path, Protection::key_from_file(&key_file))
    };
    for right in [
        &"a5".repeat(32),
        &"A5".repeat(32),
        "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU=",
        "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU",
        "\n paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU= \r\n",
    ] {
        put(right).unwrap();
    }
    for wrong in [
        "",
        "\n",
        "a5",
        &"a5".repeat(31),
        &"a5".repeat(33),
        &"zz".repeat(32),
        &"a".repeat(44),
    ] {
        let error = put(wrong).unwrap_err();
        assert!(matches!(error, LocalKmsError::Key { .. }), "{wrong}: {error}");
        assert!(wrong.len() < 2 || !format!("{error} {error:?}").contains(wrong));
    }
    let error = put(&"a6".repeat(32)).unwrap_err();
    assert!(matches!(error, LocalKmsError::WrongKey { .. }));
    let error = put(&"a5".repeat(1000)).unwrap_err();
    assert!(matches!(error, LocalKmsError::TooLarge { .. }));
    put(&"a5".repeat(32)).unwrap();
    chmod(&key_file, 0o640);
    let shared = open(&path, Protection::key_from_file(&key_file)).unwrap_err();
    assert!(matches!(shared, LocalKmsError::Permissions { .. }));
}

#[test]
fn a_key_file_that_is_missing_or_cannot_be_read_says_so_once() {
    let (folder, path) = folder();
    create(&path, key(0xa5));
    let none = folder.path().join("none");
    let phrased = folder.path().join("phrased.encx");
    create(&phrased, passphrase("tr0m bone"));
    for (file, protection) in [
        (&path, Protection::key_from_file(&none)),
        (&phrased, Protection::passphrase_from_file(&none)),
    ] {
        let error = open(file, protection).unwrap_err();
        assert!(
            matches!(&error, LocalKmsError::KeyMissing { path } if *path == none),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .starts_with(&format!("there is no file {} with the key", none.display()))
        );
        assert!(!error.to_string().contains("write there"), "{error}");
    }
    // A KEK file is not made of it.
    let made = block_on(LocalKms::create(
        folder.path().join("new.encx"),
        Protection::key_from_file(&none),
    ));
    assert!(matches!(made, Err(LocalKmsError::KeyMissing { .. })));

    // A path through a file, whose error is the operating system's.
    let error = open(&path, Protection::key_from_file(path.join("key"))).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    let text = error.to_string();
    assert!(
        !text.contains(&cause),
        "a program that prints the chain repeats it: {text}"
    );
    assert_eq!(format!("{error:?}").matches(&cause).count(), 1);
    assert!(
        text.contains("may this process read it") && !text.contains("write"),
        "{text}"
    );
}

#[test]
fn a_passphrase_file_is_one_line_and_its_owners_alone() {
    let (folder, path) = folder();
    create(&path, passphrase(" tr0m bone"));
    let file = folder.path().join("passphrase");
    let put = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        chmod(&file, mode);
        open(&path, Protection::passphrase_from_file(&file))
    };
    for right in [" tr0m bone", " tr0m bone\n", " tr0m bone\r\n"] {
        put(right, 0o400).unwrap();
        chmod(&file, 0o600);
    }
    // White space is part of a passphrase; of two line breaks, one is.
    for wrong in ["tr0m bone", " tr0m bone \n", " tr0m bone\n\n"] {
        let error = put(wrong, 0o600).unwrap_err();
        assert!(matches!(error, LocalKmsError::WrongPassphrase { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("tr0m"));
    }
    for unusable in ["", "\n", "\r\n"] {
        let error = put(unusable, 0o600).unwrap_err();
        assert!(matches!(error, LocalKmsError::Key { .. }), "{error}");
    }
    let shared = put(" tr0m bone\n", 0o640).unwrap_err();
    assert!(matches!(shared, LocalKmsError::Permissions { mode: 0o640, .. }));
    // A file created with it has the default parameters, and opens with the passphrase itself.
    chmod(&file, 0o600);
    let other = folder.path().join("other");
    create(&other, Protection::passphrase_from_file(&file));
    open(&other, passphrase(" tr0m bone")).unwrap();
}

#[test]
fn a_file_that_was_replaced_by_another_is_not_followed() {
    let (_folder, path) = folder();
    let kms = create(&path, passphrase("p"));
    fs::remove_file(&path).unwrap();
    let gone = block_on(kms.describe_kek(kms.default_kek().unwrap())).unwrap_err();
    assert_eq!(gone.kind(), KmsErrorKind::Unavailable);
    assert!(matches!(
        block_on(kms.create_kek()),
        Err(LocalKmsError::Missing { .. })
    ));
}

/// Under the same secret, so that it would open: an attacker who can write the directory put it there.
#[test]
fn another_file_in_the_place_of_one_in_use_is_refused() {
    for protection in [|| passphrase("p"), || key(1), || insecure()] {
        let (folder, path) = folder();
        let (other, aside) = (folder.path().join("other"), folder.path().join("aside"));
        let kms = create(&path, protection());
        let kek = kms.default_kek().unwrap();
        create(&other, protection());
        fs::rename(&path, &aside).unwrap();
        fs::copy(&other, &path).unwrap();
        for error in [
            block_on(kms.list_keks()).unwrap_err(),
            block_on(kms.create_kek()).unwrap_err(),
            block_on(kms.list_keks()).unwrap_err(),
        ] {
            assert!(matches!(error, LocalKmsError::Replaced { .. }), "{error}");
        }
        let used = block_on(kms.generate_data_key(kek, &context())).unwrap_err();
        assert_eq!(used.kind(), KmsErrorKind::Configuration);
        let source = std::error::Error::source(&used).unwrap();
        assert!(matches!(
            source.downcast_ref(),
            Some(LocalKmsError::Replaced { .. })
        ));
        assert_eq!(
            fs::read(&path).unwrap(),
            fs::read(&other).unwrap(),
            "it was written to"
        );
        // Opening does not detect this.
        assert_ne!(open(&path, protection()).unwrap().default_kek(), Some(kek));
        // With the right file back in place the handle works again, and sees changes made to it in between.
        let elsewhere = open(&aside, protection()).unwrap();
        block_on(elsewhere.create_kek()).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(block_on(kms.list_keks()).unwrap().len(), 2);
        block_on(kms.generate_data_key(kek, &context())).unwrap();
    }
}

/// Needs root, which alone can change a file's owner; a unit test covers the decision by ids.
#[test]
fn a_file_of_another_user_is_refused() {
    let (folder, path) = folder();
    let kms = create(&path, key(0xa5));
    let key_file = folder.path().join("key");
    fs::write(&key_file, "a5".repeat(32)).unwrap();
    chmod(&key_file, 0o600);
    let ours = fs::metadata(&path).unwrap().uid();
    for file in [&path, &key_file] {
        if let Err(error) = chown(file, Some(65534), None) {
            assert_ne!(ours, 0, "root may do that: {error}");
            return;
        }
        let refused = open(&path, Protection::key_from_file(&key_file)).unwrap_err();
        match &refused {
            LocalKmsError::Owner { path, owner, user } => {
                assert_eq!((path, *owner, *user), (file, 65534, ours));
            }
            other => panic!("{other}"),
        }
        chown(file, Some(ours), None).unwrap();
        open(&path, Protection::key_from_file(&key_file)).unwrap();
    }
    // Also under a running handle, although the file's bytes are the same.
    chown(&path, Some(65534), None).unwrap();
    for error in [
        block_on(kms.list_keks()).unwrap_err(),
        block_on(kms.create_kek()).unwrap_err(),
    ] {
        assert!(matches!(error, LocalKmsError::Owner { .. }), "{error}");
    }
}

#[test]
fn nothing_that_prints_shows_a_secret() {
    let (_folder, path) = folder();
    let kms = create(&path, passphrase("tr0mbone"));
    let wrong = open(&path, passphrase("tr0mpete")).unwrap_err();
    let protections = [
        passphrase("tr0mbone"),
        Protection::passphrase_from_file("tr0mbone"),
        key(0xa5),
        insecure(),
    ];
    let printed = format!("{kms:?} {wrong} {wrong:?} {protections:?} {protections:#?}");
    for secret in ["tr0mbone", "tr0mpete", "a5a5", "165, 165", "A5A5", "paWl"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let (_folder, path) = folder();
    let mut opening = Box::pin(LocalKms::create(path, insecure()));
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    let result = opening.as_mut().poll(&mut task);
    assert!(matches!(
        result,
        std::task::Poll::Ready(Err(LocalKmsError::NoRuntime))
    ));
}

#[test]
fn a_file_that_is_reprotected_keeps_its_keks_and_forgets_the_old_passphrase() {
    let (_folder, path) = folder();
    let kms = create(&path, passphrase("correct horse"));
    let (kek, context) = (block_on(kms.create_kek()).unwrap(), context());
    let made = block_on(kms.generate_data_key(&kek, &context)).unwrap();
    block_on(kms.reprotect(key(7))).unwrap();
    assert_eq!(mode(&path), 0o600);

    let old = open(&path, passphrase("correct horse"));
    assert!(matches!(old, Err(LocalKmsError::Protection { .. })), "{old:?}");
    // An open handle does not write the file back under the old passphrase.
    let open_handle = block_on(kms.create_kek());
    assert!(
        matches!(open_handle, Err(LocalKmsError::Replaced { .. })),
        "{open_handle:?}"
    );

    let reopened = open(&path, key(7)).unwrap();
    let unwrapped = block_on(reopened.unwrap_key(&made.wrapped, &context)).unwrap();
    assert_eq!(unwrapped.expose(), made.key.expose());
    block_on(reopened.reprotect(passphrase("battery staple"))).unwrap();
    let wrong = open(&path, passphrase("correct horse"));
    assert!(
        matches!(wrong, Err(LocalKmsError::WrongPassphrase { .. })),
        "{wrong:?}"
    );
    assert_eq!(
        block_on(open(&path, passphrase("battery staple")).unwrap().list_keks())
            .unwrap()
            .len(),
        2
    );
}
