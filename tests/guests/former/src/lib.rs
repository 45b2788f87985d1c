//! A plugin that was made before: bound to the frozen contract `picket:source@0.1.0`, and never to the current one.

wit_bindgen::generate!({
    path: [
        "../../../wit/frozen/types@0.1.0",
        "../../../wit/frozen/host@0.1.0",
        "../../../wit/frozen/source@0.1.0",
    ],
    inline: "
        package test:former@1.0.0;

        world former {
            import picket:source/sink@0.1.0;
            export picket:source/source@0.1.0;
            export picket:source/control@0.1.0;
        }
    ",
    world: "test:former/former@1.0.0",
    generate_all,
});

include!("plugin.rs");
