//! Request bodies, from bytes to the sequences they ask for: no panic, and never a failure of the server's own. The first
//! byte chooses the path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use safelmm_server::fuzzing::request_body;

fuzz_target!(|input: &[u8]| {
    if let Some((path, body)) = input.split_first()
        && let Err(status) = request_body(usize::from(*path), body)
    {
        assert!((400..500).contains(&status), "a body made the server fail with {status}");
    }
});
