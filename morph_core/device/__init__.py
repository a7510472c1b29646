"""Networks on the device at hand.

In: a Keras model. Out: a calibration file of what its operations take here, or the file that it runs from on a device.
"""
