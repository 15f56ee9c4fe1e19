package backend

import "fmt"

// CheckPut is rule R1 for a Put: what a store calls before anything else.
func CheckPut(rec Record, cond Cond) error {
	_, ifVersion := cond.Version()
	switch {
	case !cond.Absent() && !ifVersion:
		return fmt.Errorf("%w: put without a condition", ErrInvalid)
	case rec.ID == ID{}:
		return fmt.Errorf("%w: zero ID", ErrInvalid)
	case rec.Kind == 0:
		return fmt.Errorf("%w: zero Kind", ErrInvalid)
	case len(rec.Owner) > MaxOwner:
		return fmt.Errorf("%w: owner of %d bytes, at most %d", ErrInvalid, len(rec.Owner), MaxOwner)
	case len(rec.Body) > MaxBody:
		return fmt.Errorf("%w: body of %d bytes, at most %d", ErrInvalid, len(rec.Body), MaxBody)
	case rec.Created < 0 || rec.Expires < 0 || rec.PurgeAt < 0:
		return fmt.Errorf("%w: negative time", ErrInvalid)
	}
	return checkLabels(rec.Labels)
}

func checkLabels(labels []string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("%w: %d labels, at most %d", ErrInvalid, len(labels), MaxLabels)
	}
	for i, label := range labels {
		switch {
		case label == "" || len(label) > MaxLabel:
			return fmt.Errorf("%w: label %d of %d bytes, want 1 to %d", ErrInvalid, i, len(label), MaxLabel)
		case i > 0 && labels[i-1] >= label:
			return fmt.Errorf("%w: label %d is not above the one before", ErrInvalid, i)
		}
	}
	return nil
}

// CheckUpdate is the second half of rule R10: what a Put may not change.
func CheckUpdate(old, rec Record) error {
	if old.Kind != rec.Kind || old.Owner != rec.Owner || old.Parent != rec.Parent || old.Created != rec.Created {
		return fmt.Errorf("%w: kind, owner, parent and created never change", ErrInvalid)
	}
	return nil
}

// CheckQuery is rule R1 for a List and returns the page size to use.
func CheckQuery(q Query) (limit int, err error) {
	indexes := 0
	for _, used := range []bool{q.Owner != "", q.Parent != ID{}, q.Label != "", q.ExpiresBefore != 0} {
		if used {
			indexes++
		}
	}
	switch {
	case q.Kind == 0:
		return 0, fmt.Errorf("%w: query without a Kind", ErrInvalid)
	case indexes > 1:
		return 0, fmt.Errorf("%w: query by more than one index", ErrInvalid)
	case q.Newest && q.ExpiresBefore != 0:
		return 0, fmt.Errorf("%w: query by expiry with the newest first", ErrInvalid)
	case q.ExpiresBefore < 0 || q.Limit < 0 || q.Limit > MaxLimit:
		return 0, fmt.Errorf("%w: query limit or time out of range", ErrInvalid)
	case q.Limit == 0:
		return DefaultLimit, nil
	}
	return q.Limit, nil
}

// CheckCount is rule R22 for what Count is asked: what a store calls before anything else.
func CheckCount(q Query, most int) error {
	if _, err := CheckQuery(q); err != nil {
		return err
	}
	if q.After != "" || q.Limit != 0 || most < 1 {
		return fmt.Errorf("%w: count of a page, or up to %d", ErrInvalid, most)
	}
	return nil
}

// CheckPurge is rule R17 for the limit of a Purge.
func CheckPurge(limit int) error {
	if limit < 1 || limit > MaxLimit {
		return fmt.Errorf("%w: purge limit %d, want 1 to %d", ErrInvalid, limit, MaxLimit)
	}
	return nil
}

// CheckGetMany is rule R19 for the number of IDs, which may repeat: what a store calls
// before anything else.
func CheckGetMany(ids []ID) error {
	if len(ids) > MaxLimit {
		return fmt.Errorf("%w: %d records at once, at most %d", ErrInvalid, len(ids), MaxLimit)
	}
	return nil
}

// CheckScan is rule R20 for the kind of a Scan.
func CheckScan(kind Kind) error {
	if kind == 0 {
		return fmt.Errorf("%w: scan without a Kind", ErrInvalid)
	}
	return nil
}
