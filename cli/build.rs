//! What the program carries along, so that it is built again when a file is added to it.

fn main() {
    for folder in ["templates", "../wit", "../sdk/src", "../sdk/python", "../sdk/javascript", "../sdk/c"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}
