#ifndef ALONE_H
#define ALONE_H
void store_alone(int class);
#endif
