// A searched value has as many parts as the index, and each part can be indexed.
use encx::{Crypto, Encrypt};

#[derive(Encrypt)]
#[encx(table = "patients", context("purpose" = "pii"))]
#[encx(index(name = "name_born", fields = [last_name, born], bits = 16))]
struct Patient {
    #[encx(id)]
    id: i64,
    #[encx(encrypt)]
    last_name: String,
    #[encx(encrypt)]
    born: i32,
}

async fn search(crypto: &Crypto) {
    let _ = Patient::name_born_terms(crypto, "Lovelace").await;
    let _ = Patient::name_born_terms(crypto, ("Lovelace", 1815, "Ada")).await;
}

#[derive(Encrypt)]
#[encx(table = "patients", context("purpose" = "pii"))]
#[encx(index(name = "name_smokes", fields = [last_name, smokes], bits = 16))]
struct Smoker {
    #[encx(id)]
    id: i64,
    #[encx(encrypt)]
    last_name: String,
    #[encx(encrypt)]
    smokes: bool,
}

fn main() {}
