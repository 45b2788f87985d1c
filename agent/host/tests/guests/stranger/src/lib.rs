//! A component of a world that is not Picket's.

wit_bindgen::generate!({
    inline: "package example:stranger@1.0.0; world stranger { export greet: func() -> string; }",
});

struct Stranger;

impl Guest for Stranger {
    fn greet() -> String {
        "hello".to_owned()
    }
}

export!(Stranger);
