#include <dcmtk/dcmdata/dctk.h>
