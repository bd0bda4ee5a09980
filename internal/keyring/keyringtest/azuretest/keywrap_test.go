package azuretest

import (
	"encoding/hex"
	"testing"
)

// The vector of RFC 3394, section 4.6: the service that others are tested against
// must itself be right.
func TestKeyWrapVector(t *testing.T) {
	t.Parallel()
	kek, _ := hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	key, _ := hex.DecodeString("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")
	const want = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
	got, err := wrap(kek, key)
	if err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got %x, %v", got, err)
	}
	if back, err := unwrap(kek, got); err != nil || string(back) != string(key) {
		t.Errorf("unwrapped: %x, %v", back, err)
	}
	got[3] ^= 1
	if _, err := unwrap(kek, got); err == nil {
		t.Error("a changed one unwrapped")
	}
}
