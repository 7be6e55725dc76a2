//! Tests of the file's bytes: they match the documentation, and all other bytes are refused.

use encx_core::kms::KekState;
use encx_suite::KcXaes256Gcm;
use proptest::prelude::*;

use super::*;

const SALT: [u8; SALT_LEN] = [7; SALT_LEN];
const FILE_ID: [u8; FILE_ID_LEN] = [8; FILE_ID_LEN];

fn key(byte: u8) -> DataKey {
    DataKey::copy_from(&[byte; 32]).unwrap()
}

fn headers() -> [Header; 3] {
    let params = Argon2Params::new(128, 1, 1).unwrap();
    [
        Header::Passphrase { params, salt: SALT },
        Header::Key { file_id: FILE_ID },
        Header::PermissionsOnly { key: key(9) },
    ]
}

fn name(name: &str) -> KekId {
    KekId::new(name).unwrap()
}

fn keks() -> Keks {
    let material = |byte: u8| Material::new(Uuid::from_bytes([byte; 16]), key(byte));
    Keks {
        keks: vec![
            Kek {
                id: name("local/a"),
                state: KekState::Enabled,
                materials: vec![material(1), material(2)],
            },
            Kek {
                id: name("local/b"),
                state: KekState::Disabled,
                materials: vec![material(3)],
            },
        ],
        default: 1,
        aliases: BTreeMap::from([(name("alias/x"), 0), (name("alias/y"), 1)]),
    }
}

/// The body of [`keks`], written by hand.
fn body() -> Vec<u8> {
    [
        &b"\0\x02"[..],
        b"\0\x07local/a\x01\0\x02",
        &[1; 48],
        &[2; 48],
        b"\0\x07local/b\x02\0\x01",
        &[3; 48],
        b"\0\x01",
        b"\0\x02\0\x07alias/x\0\0\0\x07alias/y\0\x01",
    ]
    .concat()
}

fn file(header: &Header) -> Vec<u8> {
    let header = header.to_bytes();
    let sealed = KcXaes256Gcm::new(&key(5)).seal(&header, &body()).unwrap();
    assemble(&header, &sealed).unwrap().to_vec()
}

fn checksummed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn refused(bytes: &[u8]) -> FormatError {
    parse(bytes).map(|_| ()).unwrap_err()
}

#[test]
fn a_body_has_the_documented_bytes() {
    assert_eq!(write_body(&keks()).as_slice(), body());
    let read = parse_body(&body()).unwrap();
    assert_eq!(write_body(&read).as_slice(), body());
    assert_eq!(read.list(), keks().list());
    assert_eq!(read.keks[0].materials[1].key().expose(), &[2; 32]);
}

#[test]
fn a_file_has_the_documented_bytes() {
    let expected = [
        [&b"encx-kek\x01\x01\0\0\0\x80\0\0\0\x01\0\0\0\x01"[..], &SALT].concat(),
        [&b"encx-kek\x01\x02"[..], &FILE_ID].concat(),
        [&b"encx-kek\x01\x03"[..], &[9; 32]].concat(),
    ];
    for (header, expected) in headers().iter().zip(expected) {
        assert_eq!(header.to_bytes().as_slice(), expected);
        let sealed_len = u32::try_from(body().len() + KcXaes256Gcm::OVERHEAD).unwrap();
        let bytes = file(header);
        let (start, rest) = bytes.split_at(expected.len());
        assert_eq!(start, expected);
        assert_eq!(rest[..4], sealed_len.to_be_bytes());
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.header_bytes, expected);
        assert_eq!(parsed.header.to_bytes().as_slice(), expected);
        let opened = KcXaes256Gcm::new(&key(5)).open(&expected, parsed.sealed).unwrap();
        assert_eq!(*opened, body());
        let end = bytes.len() - CHECKSUM_LEN;
        assert_eq!(bytes[end..], Sha256::digest(&bytes[..end])[..]);
    }
}

#[test]
fn every_bit_flip_and_truncation_of_a_file_is_corruption() {
    for header in headers() {
        let bytes = file(&header);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(refused(&changed), FormatError::Corrupt(_)), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(
                matches!(refused(&bytes[..len]), FormatError::Corrupt(_)),
                "{len} bytes"
            );
        }
        let longer = [bytes, vec![0]].concat();
        assert!(matches!(refused(&longer), FormatError::Corrupt(_)));
    }
}

#[test]
fn another_version_and_another_protection_are_refused() {
    for version in (0..=255).filter(|version| *version != VERSION) {
        let bytes = checksummed([MAGIC, &[version, 2][..], &FILE_ID, &[0; 4]].concat());
        assert_eq!(refused(&bytes), FormatError::Version(version));
    }
    for protection in (0..=255).filter(|protection| !(1..=3).contains(protection)) {
        let bytes = checksummed([MAGIC, &[VERSION, protection][..], &[0; 64]].concat());
        assert!(matches!(refused(&bytes), FormatError::Corrupt(_)));
    }
}

#[test]
fn hostile_argon2_parameters_and_lengths_are_refused_before_use() {
    let hostile = [
        [u32::MAX, 1, 1],
        [(1 << 20) + 1, 1, 1],
        [127, 1, 1],
        [0, 1, 1],
        [128, 0, 1],
        [128, 17, 1],
        [128, u32::MAX, 1],
        [128, 1, 0],
        [128, 1, 17],
        [128, 1, u32::MAX],
    ];
    for params in hostile {
        let params = params.map(u32::to_be_bytes).concat();
        let bytes = checksummed([MAGIC, &[VERSION, 1][..], &params, &SALT, &[0; 4]].concat());
        assert_eq!(
            refused(&bytes),
            FormatError::Corrupt("its Argon2 parameters are out of bounds")
        );
    }
    for len in [1, 0x7fff_ffff, u32::MAX] {
        let bytes = checksummed([MAGIC, &[VERSION, 2][..], &FILE_ID, &len.to_be_bytes()].concat());
        assert_eq!(refused(&bytes), FormatError::Corrupt("it ends too early"));
    }
}

/// No honest writer seals these, so even an attacker who holds the key cannot confuse a reader.
#[test]
fn a_body_that_contradicts_itself_is_refused() {
    let kek = |id: &str, state: u8, materials: &[u8]| {
        let mut bytes = u16::try_from(id.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(id.as_bytes());
        bytes.push(state);
        bytes.extend_from_slice(&u16::try_from(materials.len()).unwrap().to_be_bytes());
        materials
            .iter()
            .for_each(|byte| bytes.extend_from_slice(&[*byte; 48]));
        bytes
    };
    let (a, b) = (kek("local/a", 1, &[1]), kek("local/b", 1, &[1]));
    let end = b"\0\0\0\0";
    assert!(parse_body(&[b"\0\x02", &a[..], &b, end].concat()).is_ok());
    let wrong = [
        vec![],
        [b"\0\0", &end[..]].concat(),
        [b"\xff\xff", &a[..], end].concat(),
        [b"\0\x02", &a[..], &a, end].concat(),
        [b"\0\x01", &kek("local/a", 0, &[1])[..], end].concat(),
        [b"\0\x01", &kek("local/a", 3, &[1])[..], end].concat(),
        [b"\0\x01", &kek("local/a", 1, &[])[..], end].concat(),
        [b"\0\x01", &kek("local/a", 1, &[1, 1])[..], end].concat(),
        [b"\0\x01", &kek("local/a", 1, &[1; 1001])[..], end].concat(),
        [b"\0\x01", &kek("", 1, &[1])[..], end].concat(),
        [b"\0\x01", &kek("a\nb", 1, &[1])[..], end].concat(),
        [b"\0\x01", &kek("alias/a", 1, &[1])[..], end].concat(),
        [b"\0\x01", &kek(&"a".repeat(2049), 1, &[1])[..], end].concat(),
        [b"\0\x01\0\x01\xff\x01\0\x01", &[1; 48][..], end].concat(),
        [b"\0\x01", &a[..], b"\0\x01\0\0"].concat(),
        [b"\0\x01", &a[..], b"\0\0\0\x01\0\x07alias/x\0\x01"].concat(),
        [b"\0\x01", &a[..], b"\0\0\0\x01\0\x06alias/\0\0"].concat(),
        [b"\0\x01", &a[..], b"\0\0\0\x01\0\x07local/x\0\0"].concat(),
        [b"\0\x01", &a[..], b"\0\0\0\x02\0\x07alias/x\0\0\0\x07alias/x\0\0"].concat(),
        [b"\0\x01", &a[..], b"\0\0\0\x02\0\x07alias/y\0\0\0\x07alias/x\0\0"].concat(),
        [b"\0\x01", &a[..], end, b"\0"].concat(),
    ];
    for (number, wrong) in wrong.iter().enumerate() {
        assert!(parse_body(wrong).is_err(), "body {number}");
    }
    let body = body();
    for len in 0..body.len() {
        assert!(parse_body(&body[..len]).is_err(), "the first {len} bytes");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse_body(&bytes);
        let _ = parse(&checksummed([MAGIC, &bytes[..]].concat()));
        let _ = parse(&checksummed([MAGIC, &[VERSION][..], &bytes].concat()));
    }

    /// Parsing accepts only what writing produces.
    #[test]
    fn a_changed_body_is_refused_or_written_back_the_same(
        at in 0..body().len(), byte in any::<u8>(), cut in 0_usize..3,
    ) {
        let mut bytes = body();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        if let Ok(keks) = parse_body(&bytes) {
            prop_assert_eq!(write_body(&keks).to_vec(), bytes);
        }
    }
}
