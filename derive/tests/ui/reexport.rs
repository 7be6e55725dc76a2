// The code that is written looks for `encx` where `crate` says, and nowhere else.
use encx::Encrypt;

#[derive(Encrypt)]
#[encx(fragment, crate = "nowhere")]
struct Part {
    #[encx(encrypt)]
    street: String,
}

fn main() {}
