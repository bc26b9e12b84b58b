// Package quota replaces Docker's project quotas, which Debian's source package does not contain:
// the drivers detect no quota support, as on most file systems.
package quota

import "errors"

// ErrQuotaNotSupported reports that the file system has no project quota.
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
