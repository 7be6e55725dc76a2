//! The struct that is kept in the database.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Visibility;

use crate::field::{Field, Role};
use crate::generics::Split;
use crate::index::Index;
use crate::model::Model;

pub(super) fn write(model: &Model, split: &Split) -> TokenStream {
    let encrypted = &model.encrypted;
    let (ident, vis, attrs) = (&encrypted.ident, &encrypted.vis, &encrypted.attrs);
    let derives = (!encrypted.derives.is_empty()).then(|| {
        let derives = &encrypted.derives;
        quote!(#[derive(#(#derives),*)])
    });
    let generics = &split.kept;
    let bounds = &generics.where_clause;
    let doc = format!(
        "`{}` as it is kept in the database. Written by `#[derive(Encrypt)]`.",
        model.ident
    );
    let fields = model.fields.iter().map(|field| field_of(model, field));
    let indexes = model.compounds.iter().map(|compound| {
        let is_optional = model.parts(compound).any(|field| field.value_type().1);
        // Seen by whoever sees the first of them.
        let vis = model.parts(compound).next().map(|field| &field.vis);
        index_of(model, &compound.index, &compound.title, vis, is_optional)
    });
    quote! {
        #[doc = #doc]
        #derives
        #(#[#attrs])*
        #vis struct #ident #generics #bounds {
            #(#fields,)*
            #(#indexes,)*
        }
    }
}

fn field_of(model: &Model, field: &Field) -> TokenStream {
    let Field {
        ident,
        vis,
        attrs,
        ty,
        ..
    } = field;
    let krate = &model.krate;
    let (doc, ty) = match field.role {
        Role::Id { .. } | Role::Plain => (None, quote!(#ty)),
        Role::Nested { .. } => {
            let (inner, is_optional) = field.value_type();
            let ty = quote!(<#inner as #krate::record::Fragment>::Encrypted);
            (
                Some(format!("`{}`, with its own fields encrypted.", field.name)),
                optional(&ty, is_optional),
            )
        }
        Role::Password { .. } => {
            let (_, is_optional) = field.value_type();
            let doc = format!("The hash of `{}`.", field.name);
            (
                Some(doc),
                optional(&quote!(#krate::password::PasswordHash), is_optional),
            )
        }
        Role::Token { .. } | Role::Value { .. } => {
            let (_, is_optional) = field.value_type();
            let doc = format!("The ciphertext of `{}`.", field.name);
            (Some(doc), optional(&quote!(#krate::Ciphertext), is_optional))
        }
    };
    let doc = match doc {
        Some(doc) => quote!(#[doc = #doc]),
        None if field.docs.is_empty() => {
            let doc = format!("`{}`, as it is.", field.name);
            quote!(#[doc = #doc])
        }
        None => {
            let docs = &field.docs;
            quote!(#(#docs)*)
        }
    };
    let from_row = from_row(model, field);
    let indexes = field.indexes.iter().map(|index| {
        let (_, is_optional) = field.value_type();
        index_of(model, index, &field.name, Some(vis), is_optional)
    });
    quote! {
        #doc
        #from_row
        #(#[#attrs])*
        #vis #ident: #ty
        #(, #indexes)*
    }
}

fn index_of(
    model: &Model,
    index: &Index,
    of: &str,
    vis: Option<&Visibility>,
    is_optional: bool,
) -> TokenStream {
    let krate = &model.krate;
    let Index {
        ident, sql, attrs, ..
    } = index;
    let doc = format!("The blind index of `{of}`.");
    let ty = optional(&quote!(#krate::search::BlindIndex), is_optional);
    let is_renamed = model.encrypted.is_from_row() && *ident != sql.value();
    let from_row = is_renamed.then(|| quote!(#[sqlx(rename = #sql)]));
    quote! {
        #[doc = #doc]
        #from_row
        #(#[#attrs])*
        #vis #ident: #ty
    }
}

fn optional(ty: &TokenStream, is_optional: bool) -> TokenStream {
    if is_optional {
        quote!(::core::option::Option<#ty>)
    } else {
        ty.clone()
    }
}

/// Tells `sqlx::FromRow` where a field lies, unless the user does.
fn from_row(model: &Model, field: &Field) -> Option<TokenStream> {
    if !model.encrypted.is_from_row() || field.says_how_to_read() {
        return None;
    }
    if let Role::Nested { .. } = field.role {
        return Some(quote!(#[sqlx(flatten)]));
    }
    let sql = &field.sql;
    (field.name != sql.value()).then(|| quote!(#[sqlx(rename = #sql)]))
}
