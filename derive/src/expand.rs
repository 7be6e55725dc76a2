//! Generates the code: the encrypted struct, the impls of `encx`'s traits, and methods that call into `encx`.

mod describe;
mod encrypted;
mod lookups;
mod methods;
mod traits;

use proc_macro2::TokenStream;
use quote::quote;

use crate::model::Model;

pub(crate) fn expand(model: &Model) -> TokenStream {
    let split = crate::generics::Split::of(model);
    let encrypted = encrypted::write(model, &split);
    let traits = traits::write(model, &split);
    let methods = methods::write(model, &split);
    let constants = traits::index_constants(model);
    quote! {
        #encrypted
        #[doc(hidden)]
        const _: () = {
            #constants
            #traits
            #methods
        };
    }
}
