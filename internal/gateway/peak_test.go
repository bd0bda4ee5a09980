//go:build !race

package gateway_test

import "github.com/ambit-dev/ambit/internal/provider/providertest"

const raceDetector = false

func peak(f func()) uint64 { return providertest.Peak(f) }
