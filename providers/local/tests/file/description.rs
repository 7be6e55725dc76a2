//! Reads a file's content without this crate.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use encx::kms::{DataKey, KekId, KeyManagementService};
use encx::suite::KcXaes256Gcm;
use encx_testkit::block_on;

use crate::common::{context, insecure};
use crate::{create, folder, name};

#[test]
fn nothing_that_prints_shows_a_kek() {
    let (_folder, path) = folder();
    let kms = create(&path, insecure());
    let (kek, materials) = read_by_description(&fs::read(&path).unwrap());
    let made = block_on(kms.generate_data_key(&kek, &context())).unwrap();
    let wrong = block_on(kms.unwrap_key(&made.wrapped, &context())).unwrap_err();
    let listed = block_on(kms.list_keks()).unwrap();
    let printed =
        format!("{kms:?}{kms:#?}{made:?}{wrong}{wrong:?}{listed:?}").replace(char::is_whitespace, "");
    let bytes = &materials[0].1.expose()[..6];
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<_> = bytes.iter().map(u8::to_string).collect();
    for form in [
        hex.to_uppercase(),
        hex,
        list.join(","),
        BASE64_STANDARD.encode(bytes),
    ] {
        assert!(!printed.contains(&form), "{printed}");
    }
}

/// Reads a file's first KEK by the format description, without this crate: its id, and its materials.
fn read_by_description(bytes: &[u8]) -> (KekId, Vec<([u8; 16], DataKey)>) {
    assert_eq!(bytes[..10], *b"encx-kek\x01\x03");
    let (header, rest) = bytes.split_at(42);
    let file_key = DataKey::copy_from(&header[10..]).unwrap();
    let len = usize::try_from(u32::from_be_bytes(rest[..4].try_into().unwrap())).unwrap();
    assert_eq!(rest.len(), 4 + len + 32);
    let body = KcXaes256Gcm::new(&file_key)
        .open(header, &rest[4..4 + len])
        .unwrap();
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let id_len = u16_at(2);
    let id = std::str::from_utf8(&body[4..4 + id_len]).unwrap();
    assert_eq!(body[4 + id_len], 1);
    let materials = body[7 + id_len..].chunks(48).take(u16_at(5 + id_len));
    let materials = materials.map(|bytes| {
        (
            bytes[..16].try_into().unwrap(),
            DataKey::copy_from(&bytes[16..]).unwrap(),
        )
    });
    (name(id), materials.collect())
}

#[test]
fn a_wrap_can_be_opened_from_the_description_alone() {
    let (_folder, path) = folder();
    let kms = create(&path, insecure());
    let kek = kms.default_kek().unwrap();
    block_on(kms.rotate_kek(kek)).unwrap();
    let context = context();
    let made = block_on(kms.generate_data_key(kek, &context)).unwrap();
    let (id, materials) = read_by_description(&fs::read(&path).unwrap());
    assert_eq!((&id, materials.len()), (kek, 2));
    let wrap = &made.wrapped.ciphertext;
    assert_eq!(wrap.len(), 1 + 16 + 24 + 32 + 16 + 32);
    assert_eq!((wrap[0], &wrap[1..17]), (1, &materials[1].0[..]));
    let framed_id = [
        &u16::try_from(id.as_str().len()).unwrap().to_be_bytes()[..],
        id.as_str().as_bytes(),
    ]
    .concat();
    let aad = [
        b"encx/local-wrap/v1",
        &wrap[..17],
        &framed_id,
        &context.canonical(),
    ]
    .concat();
    let opened = KcXaes256Gcm::new(&materials[1].1)
        .open(&aad, &wrap[17..])
        .unwrap();
    assert_eq!(opened.as_slice(), made.key.expose());
}
