//! The checksum of everything that Bifrost stores and sends: crc32c, the one of Castagnoli, as in iSCSI and ext4.
//!
//! [`crc32c`] and [`crc32c_append`] go over bytes, [`Sum`] puts what was made of some of them behind others without another look.

mod sum;

use crc_fast::{CrcAlgorithm, Digest};

pub use sum::Sum;

/// Of these bytes.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Of what `crc` is that of, followed by these bytes.
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{crc32c, crc32c_append};

    #[test]
    fn it_is_the_checksum_that_everybody_means() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, appendix B.4");
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43, "RFC 3720, appendix B.4");
        assert_eq!(crc32c(&[]), 0);
    }

    proptest! {
        /// Wide instructions are taken for long pieces and narrow ones for what is left: every length and alignment has its way.
        #[test]
        fn it_is_what_another_library_makes_of_it(
            bytes in proptest::collection::vec(any::<u8>(), 0..9000),
            start in 0..70_usize,
            cut in 0..9000_usize,
        ) {
            let bytes = bytes.get(start..).unwrap_or_default();
            let whole = ::crc32c::crc32c(bytes);
            prop_assert_eq!(crc32c(bytes), whole);
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(crc32c_append(crc32c(first), rest), whole);
        }
    }

    #[test]
    fn every_short_length_at_every_alignment_is_right() {
        let bytes: Vec<u8> = (0..2000_u32).map(|at| (at * 7 % 253) as u8).collect();
        for start in 0..64 {
            for length in (0..600).chain([1023, 1024, 1025, 1919]) {
                let piece = &bytes[start..start + length];
                assert_eq!(crc32c(piece), ::crc32c::crc32c(piece), "{length} bytes at {start}");
                assert_eq!(crc32c_append(77, piece), ::crc32c::crc32c_append(77, piece), "{length} bytes at {start}");
            }
        }
    }
}
