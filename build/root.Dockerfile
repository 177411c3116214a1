# Makes an image of the folder that rootfs.sh has filled. Used by images.ts alone.
FROM scratch
COPY rootfs/ /
