//! The timed operations on a hot key.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use encx::{Aad, Ciphertext, Crypto, Encrypt, EncryptionContext, Field, Keyring};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use tokio::runtime::Runtime;

use super::floor::{AAD_LEN, Floor};
use super::{Run, ready};

/// Long enough for a framed AAD of the same length as the floor's.
const HOUSE_NUMBER: Field = Field::new("customer_addresses", "house_number");
const ROW: i64 = 42;

/// One operation on plaintexts of one length: the floor first, then the cases compared with it.
pub(crate) struct Row<'a> {
    pub(crate) name: &'static str,
    pub(crate) len: usize,
    pub(crate) cases: Vec<Case<'a>>,
}

pub(crate) struct Case<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<Run<'a>>,
}

impl<'a> Case<'a> {
    /// Times a call and the drop of its result.
    fn new<T>(name: &'static str, call: impl Fn() -> T + Sync + 'a) -> Self {
        let run = move |calls| {
            for _ in 0..calls {
                black_box(call());
            }
        };
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// A `Crypto` and a keyring whose key is in memory, and the floor.
pub(crate) struct Hot {
    floor: Floor,
    crypto: Crypto,
    keyring: Keyring,
    context: EncryptionContext,
    aad: Aad,
    /// Drives the cache's background work.
    _runtime: Runtime,
}

impl Hot {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let context = EncryptionContext::builder()
            .pair("tenantId", "t-42")
            .pair("purpose", "pii")
            .build()
            .expect("the context is valid");
        let aad = HOUSE_NUMBER.row(ROW);
        assert_eq!(aad.framed().expect("the AAD is valid").len(), AAD_LEN);
        let (crypto, keyring) = runtime
            .block_on(async {
                let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
                    .build()
                    .await?;
                crypto.encrypt(&context, "makes the key", &aad).await?;
                let keyring = crypto.keyring(&context).await?;
                Ok::<_, encx::Error>((crypto, keyring))
            })
            .expect("the key is made");
        Self {
            floor: Floor::new(),
            crypto,
            keyring,
            context,
            aad,
            _runtime: runtime,
        }
    }

    /// Lists the timed cases for one length.
    pub(crate) fn rows(&self, len: usize) -> Vec<Row<'_>> {
        let mut rows = vec![self.encrypt(len), self.decrypt(len), self.decrypt_miss(len)];
        if len == 64 {
            rows.extend([
                self.encrypt_record(),
                self.encrypt_derived(),
                self.decrypt_record(),
            ]);
        }
        rows
    }

    fn encrypt(&self, len: usize) -> Row<'_> {
        let bytes = vec![0xa5; len];
        let (of_floor, of_keyring, of_crypto) = (bytes.clone(), bytes.clone(), bytes.clone());
        let (of_row, of_crypto_row, of_buffer) = (bytes.clone(), bytes.clone(), bytes);
        let mut cases = vec![
            Case::new("floor", move || self.floor.seal(black_box(&of_floor))),
            Case::new("keyring", move || {
                let encrypted = self.keyring.encrypt(black_box(&of_keyring), &self.aad);
                ready(encrypted).expect("it encrypts")
            }),
            Case::new("crypto", move || {
                let encrypted = self
                    .crypto
                    .encrypt(&self.context, black_box(&of_crypto), &self.aad);
                ready(encrypted).expect("it encrypts")
            }),
        ];
        if len == 64 {
            // As in a service: the AAD is framed for each row.
            cases.push(Case::new("keyring-and-row", move || {
                let aad = HOUSE_NUMBER.row(black_box(ROW));
                ready(self.keyring.encrypt(black_box(&of_row), aad)).expect("it encrypts")
            }));
            cases.push(Case::new("crypto-and-row", move || {
                let aad = HOUSE_NUMBER.row(black_box(ROW));
                let encrypted = self.crypto.encrypt(&self.context, black_box(&of_crypto_row), aad);
                ready(encrypted).expect("it encrypts")
            }));
            cases.push(Case::new("keyring-into", move || {
                BUFFER.with_borrow_mut(|buffer| {
                    let encrypted = self
                        .keyring
                        .encrypt_into(black_box(&of_buffer), &self.aad, buffer);
                    ready(encrypted).expect("it encrypts");
                    black_box(buffer.len())
                })
            }));
        }
        Row {
            name: "encrypt",
            len,
            cases,
        }
    }

    /// A value whose message key is cached: one of many that were encrypted close together.
    fn decrypt(&self, len: usize) -> Row<'_> {
        let bytes = vec![0xa5; len];
        let of_floor = self.floor.seal(&bytes);
        let of_keyring = ready(self.keyring.encrypt(&bytes, &self.aad)).expect("it encrypts");
        let (of_crypto, of_unwiped, of_buffer) = (of_keyring.clone(), of_keyring.clone(), of_keyring.clone());
        let (of_row, of_crypto_row) = (of_keyring.clone(), of_keyring.clone());
        let mut cases = vec![
            Case::new("floor", move || self.floor.open(black_box(&of_floor))),
            Case::new("keyring", move || {
                ready(self.keyring.decrypt(black_box(&of_keyring), &self.aad)).expect("it decrypts")
            }),
            Case::new("crypto", move || {
                let decrypted = self
                    .crypto
                    .decrypt(&self.context, black_box(&of_crypto), &self.aad);
                ready(decrypted).expect("it decrypts")
            }),
            // The floor does not wipe what it decrypted, and neither does this.
            Case::new("keyring-unwiped", move || {
                let decrypted = ready(self.keyring.decrypt(black_box(&of_unwiped), &self.aad));
                decrypted.expect("it decrypts").into_bytes()
            }),
        ];
        if len == 64 {
            cases.push(Case::new("keyring-and-row", move || {
                let aad = HOUSE_NUMBER.row(black_box(ROW));
                ready(self.keyring.decrypt(black_box(&of_row), aad)).expect("it decrypts")
            }));
            cases.push(Case::new("crypto-and-row", move || {
                let aad = HOUSE_NUMBER.row(black_box(ROW));
                let decrypted = self.crypto.decrypt(&self.context, black_box(&of_crypto_row), aad);
                ready(decrypted).expect("it decrypts")
            }));
            cases.push(Case::new("keyring-in-place", move || {
                BUFFER.with_borrow_mut(|buffer| {
                    buffer.clear();
                    buffer.extend_from_slice(black_box(of_buffer.as_bytes()));
                    ready(self.keyring.decrypt_in_place(buffer, &self.aad)).expect("it decrypts");
                    black_box(buffer.len())
                })
            }));
        }
        Row {
            name: "decrypt",
            len,
            cases,
        }
    }

    /// Values that share no message key, as when old ones are read at random.
    fn decrypt_miss(&self, len: usize) -> Row<'_> {
        let bytes = vec![0xa5; len];
        // A thread must forget each value before it recurs, or its key would be cached. For the longest there are few
        // values, so many keys are cached, but deriving one takes a thousandth of the time.
        let others = if len < 1 << 20 { 1024 } else { 16 };
        let of_floor: Vec<_> = (0..others).map(|_| self.floor.seal(&bytes)).collect();
        let encrypted = std::iter::repeat_with(|| {
            // Ends the epoch.
            encx::reseed();
            ready(self.keyring.encrypt(&bytes, &self.aad)).expect("it encrypts")
        });
        let encrypted: Arc<[_]> = encrypted.filter(is_soon_forgotten).take(others).collect();
        let of_crypto = Arc::clone(&encrypted);
        let cases = vec![
            Case::new("floor", move || {
                let next = &of_floor[turn(of_floor.len())];
                self.floor.open(black_box(next))
            }),
            Case::new("keyring", move || {
                let next = &encrypted[turn(encrypted.len())];
                ready(self.keyring.decrypt(next, &self.aad)).expect("it decrypts")
            }),
            Case::new("crypto", move || {
                let next = &of_crypto[turn(of_crypto.len())];
                ready(self.crypto.decrypt(&self.context, next, &self.aad)).expect("it decrypts")
            }),
        ];
        Row {
            name: "decrypt-miss",
            len,
            cases,
        }
    }

    /// Ten fields of 32 bytes: individually, and in a batch.
    fn encrypt_record(&self) -> Row<'_> {
        let fields: [_; FIELDS] = std::array::from_fn(|_| [0xa5; FIELD_LEN]);
        let cases = vec![
            Case::new("floor", move || {
                fields.map(|field| self.floor.seal(black_box(&field)))
            }),
            Case::new("keyring-one-by-one", move || {
                fields.map(|field| {
                    ready(self.keyring.encrypt(black_box(&field), &self.aad)).expect("it encrypts")
                })
            }),
            Case::new("keyring", move || {
                let items = fields.iter().map(|field| (black_box(field), &self.aad));
                let encrypted = ready(self.keyring.encrypt_many(items));
                assert!(encrypted.iter().all(Result::is_ok));
                encrypted
            }),
            Case::new("crypto-one-by-one", move || {
                fields.map(|field| {
                    let encrypted = self.crypto.encrypt(&self.context, black_box(&field), &self.aad);
                    ready(encrypted).expect("it encrypts")
                })
            }),
            Case::new("crypto", move || {
                let items = fields
                    .iter()
                    .map(|field| (&self.context, black_box(field), &self.aad));
                let encrypted = ready(self.crypto.encrypt_many(items));
                assert!(encrypted.iter().all(Result::is_ok));
                encrypted
            }),
        ];
        Row {
            name: "encrypt-record",
            len: FIELDS * FIELD_LEN,
            cases,
        }
    }

    /// The same fields in a struct: the whole call, with its AADs and its context.
    fn encrypt_derived(&self) -> Row<'_> {
        let fields: [_; FIELDS] = std::array::from_fn(|_| vec![0xa5; FIELD_LEN]);
        let address = Address::of(fields.clone());
        let cases = vec![
            Case::new("floor", move || {
                fields.each_ref().map(|field| self.floor.seal(black_box(field)))
            }),
            Case::new("crypto", move || {
                let address = black_box(&address);
                ready(address.encrypt(&self.crypto)).expect("it encrypts")
            }),
        ];
        Row {
            name: "encrypt-derived",
            len: FIELDS * FIELD_LEN,
            cases,
        }
    }

    fn decrypt_record(&self) -> Row<'_> {
        let of_floor: [_; FIELDS] = std::array::from_fn(|_| self.floor.seal(&[0xa5; FIELD_LEN]));
        let fields: [_; FIELDS] = std::array::from_fn(|_| {
            ready(self.keyring.encrypt([0xa5; FIELD_LEN], &self.aad)).expect("it encrypts")
        });
        let together = fields.clone();
        let cases = vec![
            Case::new("floor", move || {
                of_floor.each_ref().map(|field| self.floor.open(black_box(field)))
            }),
            Case::new("keyring-one-by-one", move || {
                let decrypt = |field| ready(self.keyring.decrypt(black_box(field), &self.aad));
                fields
                    .each_ref()
                    .map(|field| decrypt(field).expect("it decrypts"))
            }),
            Case::new("keyring", move || {
                let items = together.iter().map(|field| (black_box(field), &self.aad));
                let decrypted = ready(self.keyring.decrypt_many(items));
                assert!(decrypted.iter().all(Result::is_ok));
                decrypted
            }),
        ];
        Row {
            name: "decrypt-record",
            len: FIELDS * FIELD_LEN,
            cases,
        }
    }
}

/// Tells whether a value is among the sixteenth for which a thread has few slots to remember that it has opened them,
/// by the first bytes of the nonce. So fewer values are needed, and they stay in the processor's cache.
fn is_soon_forgotten(encrypted: &Ciphertext) -> bool {
    encrypted.as_bytes()[HEADER_LEN] < 16
}

/// The bytes before the nonce.
const HEADER_LEN: usize = 18;

const FIELDS: usize = 10;

/// A record of [`FIELDS`] fields of [`FIELD_LEN`] bytes.
#[derive(Encrypt)]
#[encx(table = "customer_addresses", context("tenantId" = tenant_id, "purpose" = "pii"))]
struct Address {
    #[encx(id)]
    id: i64,
    tenant_id: String,
    #[encx(encrypt)]
    house_number: Vec<u8>,
    #[encx(encrypt)]
    street: Vec<u8>,
    #[encx(encrypt)]
    city: Vec<u8>,
    #[encx(encrypt)]
    postcode: Vec<u8>,
    #[encx(encrypt)]
    region: Vec<u8>,
    #[encx(encrypt)]
    country: Vec<u8>,
    #[encx(encrypt)]
    name: Vec<u8>,
    #[encx(encrypt)]
    phone: Vec<u8>,
    #[encx(encrypt)]
    email: Vec<u8>,
    #[encx(encrypt)]
    notes: Vec<u8>,
}

impl Address {
    fn of(fields: [Vec<u8>; FIELDS]) -> Self {
        let [
            house_number,
            street,
            city,
            postcode,
            region,
            country,
            name,
            phone,
            email,
            notes,
        ] = fields;
        Self {
            id: ROW,
            tenant_id: "t-42".to_owned(),
            house_number,
            street,
            city,
            postcode,
            region,
            country,
            name,
            phone,
            email,
            notes,
        }
    }
}

const FIELD_LEN: usize = 32;

thread_local! {
    /// The output buffer of calls that allocate nothing.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static TURN: Cell<usize> = const { Cell::new(0) };
    /// Whether the thread is the first or the second of two that were started in sequence.
    static SIDE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % 2;
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Counts in a circle, separately per thread and, for two threads, each in its own half: neither reads what the other
/// has just read.
fn turn(of: usize) -> usize {
    let half = of / 2;
    TURN.set((TURN.get() + 1) % half);
    SIDE.with(|side| side * half) + TURN.get()
}
