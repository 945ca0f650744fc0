/* How many files and sockets a process may have open. */
#ifndef PULMO_APP_DESCRIPTORS_H
#define PULMO_APP_DESCRIPTORS_H

/* Raises the soft limit to the hard one; children inherit it. Login shells and service managers start programs with
 * 1024 for the sake of select(), which neither we nor our libraries use: DCMTK and libevent poll. */
void descriptors_raise(void);

#endif
