// Package quota stands in for Docker's project quotas, which Debian leaves out of its source package:
// the drivers find that there are none, as on most file systems.
package quota

import "errors"

// ErrQuotaNotSupported says that the file system keeps no project quota.
var ErrQuotaNotSupported = errors.New("Filesystem does not support, or has not enabled quotas")

// Quota is a limit in bytes.
type Quota struct {
	Size uint64
}

// Control sets limits.
type Control struct{}

// NewControl always fails.
func NewControl(string) (*Control, error) { return nil, ErrQuotaNotSupported }

// SetQuota always fails.
func (*Control) SetQuota(string, Quota) error { return ErrQuotaNotSupported }

// GetQuota always fails.
func (*Control) GetQuota(string, *Quota) error { return ErrQuotaNotSupported }
