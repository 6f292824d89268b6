// Boxes, and what their outputs read of an axis: once for every kernel.
//
// A footprint is what one output reads of one axis. Both kinds are built from
//
//   Footprint<C>(centre, extent, i, positions, size, border)
//
// for output i of `positions` of a box that is (centre, extent) on an axis of `size` pixels, and have the
// same members, so that what must be right for every call is written once over them:
//
//   begin, end   the frame's pixels that are read, [begin, end)
//   weight(r)    the weight of pixel r and its derivatives by the centre and the extent
//
// BilinearFootprint, AntialiasedFootprint and axis_readers.h are the three parts; this header is all of them.
#pragma once

#include "adafocus/antialiased_footprint.h"
#include "adafocus/arithmetic.h"
#include "adafocus/axis_readers.h"
#include "adafocus/bilinear_footprint.h"
#include "adafocus/box.h"
