//! A component of another world: fine in itself, and no plugin.

wit_bindgen::generate!({
    inline: "package test:stranger@1.0.0; world stranger { export greet: func() -> string; }",
});

struct Stranger;

impl Guest for Stranger {
    fn greet() -> String {
        "Hello".to_owned()
    }
}

export!(Stranger);
